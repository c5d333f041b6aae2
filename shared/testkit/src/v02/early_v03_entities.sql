UPDATE entities AS e
SET file_url = format('https://x/users/%s/%ss/%s.md', e.user_id, e.type, e.id),
    file_path = format('users/%s/%ss/%s.md', e.user_id, e.type, e.id),
    file_size = octet_length(was), file_type = 'markdown',
    checksum = 'sha256:' || encode(sha256(convert_to(was, 'UTF8')), 'base64')
FROM entity_plan AS p
JOIN content_blocks AS b ON b.entity_id = p.id
CROSS JOIN LATERAL (SELECT CASE p.kind WHEN 'edited_since' THEN 'An older text.'
                                       ELSE b.content END AS was) AS w
WHERE e.id = p.id AND p.kind IN ('stored', 'never_written', 'edited_since');

INSERT INTO entity_vectors (entity_id, user_id, embedding, entity_type, title)
SELECT entity_id, user_id, embedding, type, 'Number ' || n
FROM content_blocks JOIN entity_plan ON id = entity_id WHERE embedding IS NOT NULL;
