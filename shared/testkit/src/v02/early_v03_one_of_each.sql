-- What early V0.3 made of the rows of one_of_each.sql.

-- Never written to the store, or edited since; the largest size that an integer holds.
UPDATE entities SET file_url = 'https://x/users/local-user/notes/11.md',
    file_path = 'users/local-user/notes/00000000-0000-4000-8000-000000000011.md',
    file_size = 2147483647, file_type = 'markdown',
    checksum = 'sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
WHERE id = '00000000-0000-4000-8000-000000000011';
-- Half of it.
UPDATE entities SET file_path = 'users/auth0|5f7c8ec7c33c6c004bbafe82/notes/2.md'
WHERE id = '00000000-0000-4000-8000-000000000002';
INSERT INTO entity_vectors (entity_id, user_id, embedding, entity_type, title) VALUES
    ('00000000-0000-4000-8000-000000000001', 'local-user', array_fill(0.1, ARRAY[1536])::vector, 'note', 'Plain'),
    ('00000000-0000-4000-8000-000000000003', 'ada@example.org', NULL, 'note', NULL);
INSERT INTO events_v2 VALUES
    ('00000000-0000-4000-8000-0000000000e1', now(), '00000000-0000-4000-8000-000000000001', 'entity', 'created', 'local-user', '{}', NULL, 1, NULL, NULL, 'api'),
    ('00000000-0000-4000-8000-0000000000e1', now(), '00000000-0000-4000-8000-000000000001', 'entity', 'created', 'local-user', '{}', NULL, 1, NULL, NULL, 'migration');
