-- What waits for its next attempt, by when it is due: a first attempt when its series began. The words differ from those of
-- series_books on purpose: asked in its words, the database takes that index and looks at every row.
CREATE INDEX series_due ON series (COALESCE(next_at, born_at)) WHERE ended_at IS NULL AND held = 0 AND owed <> 0;
CREATE INDEX dead_letters_open_of_kind ON dead_letters (kind) WHERE resolved_at IS NULL;
