-- Whose a stream of history is: of the first of its old events that is counted, or of the stream that
-- is there. Others' events are not counted, because they are not copied: they would leave a gap.
ALTER TABLE event_store.legacy_streams ADD COLUMN user_id text;
