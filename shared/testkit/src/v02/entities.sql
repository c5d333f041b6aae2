INSERT INTO entities (id, user_id, type, title, preview, version, created_at, updated_at, deleted_at)
SELECT id, user_id, type, CASE WHEN n % 13 <> 0 THEN format('Number %s', n) END,
       CASE WHEN n % 17 <> 0 THEN format('The beginning of number %s…', n) END,
       -- V0.2 counted some of its updates, and not others.
       1 + n % 4, created_at, created_at + n % 4 * interval '1 day',
       CASE kind WHEN 'deleted' THEN created_at + interval '40 days' END
FROM entity_plan;

INSERT INTO content_blocks (entity_id, storage_provider, storage_path, storage_url, content,
                            content_type, mime_type, size_bytes, checksum, embedding, uploaded_at,
                            last_modified_at)
SELECT p.id,
       CASE kind WHEN 'elsewhere' THEN 'r2' ELSE 'db' END,
       CASE kind WHEN 'elsewhere' THEN format('users/%s/%ss/%s.md', user_id, type, id) END,
       CASE kind WHEN 'elsewhere' THEN format('https://x/%s.md', id) END,
       body, CASE kind WHEN 'html' THEN 'html' ELSE 'markdown' END,
       CASE kind WHEN 'html' THEN 'text/html' END,
       CASE WHEN n % 3 <> 0 THEN octet_length(body) END,
       CASE kind WHEN 'elsewhere' THEN 'sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' END,
       CASE WHEN kind = 'plain' AND n < embeddings THEN
           (SELECT array_agg(sin(i * (1 + p.n)))::vector FROM generate_series(1, 1536) AS i) END,
       created_at, created_at + p.n % 4 * interval '1 day'
FROM entity_plan AS p CROSS JOIN wanted
CROSS JOIN (SELECT count(*) AS texts FROM texts) AS c
CROSS JOIN LATERAL (SELECT CASE kind
    WHEN 'null_content' THEN NULL
    WHEN 'elsewhere' THEN NULL
    WHEN 'empty_content' THEN ''
    WHEN 'large' THEN repeat(format('0123456789 of %s', n) || E'\n', 4194304 / 24)
    WHEN 'odd_text' THEN n || E' \u202E Grüße 👋🏽 a\u0301\u0323 \u0001 \uFEFF \uE000 \u2028\r\n\t\uFFFD שלום'
    WHEN 'html' THEN format('<p>Number %s</p>', n)
    -- Two texts. Multiplied by primes: neighbours have texts of different sizes.
    ELSE (SELECT content FROM texts t WHERE t.n = p.n * 7919 % c.texts) || E'\n\nNumber ' || n || E'\n\n'
         || (SELECT content FROM texts t WHERE t.n = p.n * 104729 % c.texts)
END AS body) AS b
WHERE kind <> 'no_block'
ORDER BY p.n;

INSERT INTO tags SELECT md5('tag ' || user_id)::uuid, user_id, 'work, "quoted"'
FROM (SELECT DISTINCT user_id FROM entity_plan) AS u;
INSERT INTO entity_tags SELECT id, md5('tag ' || user_id)::uuid FROM entity_plan WHERE n % 5 = 0;
INSERT INTO task_details SELECT id, 'done', '2023-02-01' FROM entity_plan WHERE type = 'task';
