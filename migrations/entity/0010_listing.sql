-- no-transaction
-- Lists are one user's entities of one type, the newest first: a page is a short walk along this
-- index, the last page as the first.
CREATE INDEX CONCURRENTLY entities_listing_idx ON entities (user_id, type, created_at, id);
