-- Where the time of a request went, as JSON, and the address that answered. Absent where nobody knows: of requests before this
-- step, and of those that came to nothing.
ALTER TABLE attempts ADD COLUMN times TEXT;
ALTER TABLE attempts ADD COLUMN remote TEXT;
