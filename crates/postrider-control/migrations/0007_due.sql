-- What waits for its next attempt, by when it is due: a first attempt when its series began.
CREATE INDEX series_due ON series (COALESCE(next_at, born_at)) WHERE state = 'pending' AND held = 0 AND owed = 1;
CREATE INDEX dead_letters_open_of_kind ON dead_letters (kind) WHERE resolved_at IS NULL;
