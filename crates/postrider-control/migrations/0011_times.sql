-- Where the time of a request went, as JSON, and the address that answered. Absent where nobody knows: of requests before this
-- step, and as far as a request did not come.
ALTER TABLE attempts ADD COLUMN times TEXT;
ALTER TABLE attempts ADD COLUMN remote TEXT;
