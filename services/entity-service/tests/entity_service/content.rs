//! What comes in goes out, to the byte.

use crate::support::{assert_invalid, commit_request, id, service, set_phase};

#[tokio::test]
async fn bodies_come_back_to_the_byte() {
    let (database, running) = service(&[]).await;
    set_phase(&database.pool, "legacy").await;
    let every_character: String = ('\u{1}'..=char::MAX).collect();
    let bodies = [
        String::new(),
        " \r\n\t\u{feff}".to_owned(),
        "a\u{301} is not \u{e1}, \u{202e}and this stays backwards".to_owned(),
        r#"'; DROP TABLE entities; -- \' \\ $1 $$ {} " %s"#.to_owned(),
        every_character,
        "# Gr\u{fc}\u{df}e \u{1f44b}\u{1f3fd}\n".repeat(3 * 1024 * 1024 / 21),
    ];
    for body in bodies {
        let started = running.api.start("ada", &id()).await;
        let entity = running.api.commit(commit_request(&started, &body)).await.unwrap();
        let read = running.api.get("ada", &entity.id).await.unwrap();
        assert!(read.content_block.as_deref() == Some(&body), "{} bytes differ", body.len());
        let size: i32 =
            sqlx::query_scalar("SELECT size_bytes FROM content_blocks WHERE entity_id = $1::uuid")
                .bind(&entity.id)
                .fetch_one(&database.pool)
                .await
                .unwrap();
        assert_eq!(usize::try_from(size).unwrap(), body.len());
    }
}

#[tokio::test]
async fn a_body_with_nul_is_refused() {
    let (_database, running) = service(&[]).await;
    let started = running.api.start("ada", &id()).await;
    let refused = running.api.commit(commit_request(&started, "before\0after")).await;
    assert_invalid(refused, "create.content_block");
}

#[tokio::test]
async fn tags_keep_their_order_and_their_characters() {
    let (_database, running) = service(&[]).await;
    let tags: Vec<String> = [
        "z",
        "a",
        "z",
        "\"quoted\"",
        "back\\slash\\",
        "{a,b}",
        ",",
        "",
        " ",
        "NULL",
        "null",
        "\\N",
        "'; --",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "line\nbreak",
        "\\u0000",
        "é",
        "e\u{301}",
    ]
    .map(str::to_owned)
    .to_vec();
    for tags in [tags, Vec::new()] {
        let started = running.api.start("ada", &id()).await;
        let mut commit = commit_request(&started, "body");
        let draft = commit.create.as_mut().unwrap();
        draft.tags.clone_from(&tags);
        draft.title = "T\u{ef}tle \\ \" ' \u{1f600}".to_owned();
        draft.preview.clear();
        let written = running.api.commit(commit.clone()).await.unwrap();
        assert_eq!(written.tags, tags);
        let read = running.api.get("ada", &written.id).await.unwrap();
        assert_eq!(read.entity.as_ref(), Some(&written));
        // And as the stored answer.
        assert_eq!(running.api.commit(commit).await.unwrap(), written);
    }
}

#[tokio::test]
async fn an_empty_title_is_no_title() {
    let (database, running) = service(&[]).await;
    let started = running.api.start("ada", &id()).await;
    let mut commit = commit_request(&started, "body");
    commit.create.as_mut().unwrap().title.clear();
    commit.create.as_mut().unwrap().file.as_mut().unwrap().url.clear();
    let entity = running.api.commit(commit).await.unwrap();
    assert_eq!(entity.title, "");
    let is_null: bool =
        sqlx::query_scalar("SELECT title IS NULL AND file_url IS NULL FROM entities")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert!(is_null);
}
