//! Searches: what people type finds what they wrote, and nobody else's.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use synap_proto::{
    entity::{EntityVector, UpsertVectorsRequest, entity_service_client::EntityServiceClient},
    gateway::{CreateNoteRequest, SearchNotesRequest, SearchNotesResponse},
    reason,
};

use crate::support::{
    Client, Name, System,
    client::new_note,
    http::{answer, assert_bad_field},
    markdown::MIB,
    refusal::assert_field,
};

impl Client {
    /// The titles of what is found, the best first.
    async fn titles(&self, query: &str) -> Vec<String> {
        let found = self.search(typed(query)).await.unwrap();
        found.results.into_iter().map(|one| one.note.unwrap().title).collect()
    }

    async fn write(&self, title: &str, content: &str, tags: &[&str]) -> String {
        let request = CreateNoteRequest {
            title: title.to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            ..new_note(content, "")
        };
        self.send(self.request(request)).await.unwrap().0.id
    }
}

fn typed(query: &str) -> SearchNotesRequest {
    SearchNotesRequest { query: query.to_owned(), ..Default::default() }
}

async fn execute(system: &System, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&system.database.pool).await.unwrap();
}

#[tokio::test]
async fn what_is_typed_finds_what_was_written() {
    let system = System::start().await;
    let client = system.client("ada");
    client.write("Ships", "The old lighthouse keeper counted sailing boats.", &["harbour"]).await;
    client.write("Lighthouse", "A tower by the sea, and a keeper.", &[]).await;
    client.write("Bread", "Flour, water, salt. The sea has salt, too.", &["kitchen", "sea"]).await;
    system.client("bob").write("Bob's lighthouse", "lighthouse sea", &["sea"]).await;

    for (query, titles) in [
        // A title counts for more than a body, a tag too.
        ("lighthouse", &["Lighthouse", "Ships"][..]),
        // Forms of a word are one word; those that stand together count for more.
        ("lighthouses KEEPERS", &["Ships", "Lighthouse"]),
        ("sea", &["Bread", "Lighthouse"]),
        ("harbour", &["Ships"]),
        ("\"lighthouse keeper\"", &["Ships"]),
        ("\"keeper lighthouse\"", &[]),
        ("sea -tower", &["Bread"]),
        ("-sea", &["Ships"]),
        ("light*", &["Lighthouse", "Ships"]),
        ("flour or boat", &["Bread", "Ships"]),
        ("the", &[]),
        ("&& ( ' \\ :*", &[]),
        ("it's 'sea' & salt)", &["Bread"]),
    ] {
        let mut found = client.titles(query).await;
        if query.contains(" or ") {
            found.sort();
        }
        assert_eq!(found, titles, "{query}");
    }
    let found = client.search(typed("keeper")).await.unwrap();
    assert_eq!(found.mode, "keyword");
    for result in &found.results {
        assert!(result.score > 0.0 && result.snippet.contains("**keeper**"), "{result:?}");
        assert_eq!(result.note.as_ref().unwrap().content, "");
    }

    execute(&system, "UPDATE entities SET deleted_at = now() WHERE title = 'Lighthouse'").await;
    assert_eq!(client.titles("lighthouse").await, ["Ships"]);

    // A body that cannot be read costs its snippet only.
    execute(&system, "UPDATE storage_phase SET phase = 'object_only'").await;
    let id = client.write("Gone", "A keeper whose words are gone.", &[]).await;
    std::fs::remove_file(system.blob_dir().join(format!("users/ada/notes/{id}.md"))).unwrap();
    client.write("Kept", "A keeper whose words are kept.", &[]).await;
    let found = client.search(typed("words")).await.unwrap();
    let mut snippets: Vec<_> = found.results.iter().map(|one| one.snippet.as_str()).collect();
    snippets.sort_unstable();
    assert_eq!(snippets, ["A keeper whose **words** are kept", "A keeper whose words are gone."]);
    assert_field(&client.search(typed(" ")).await.unwrap_err(), reason::INVALID_FIELD, "query");
}

#[tokio::test]
async fn results_come_in_pages_for_one_user_and_query() {
    let system = System::start().await;
    let (ada, bob) = (system.client("ada"), system.client("bob"));
    let titles: Vec<_> = (0..25).map(|n| format!("Apple {n}")).collect();
    join_all(titles.iter().map(|title| ada.write(title, "an apple a day", &[]))).await;
    let page = |query: &str, page_token: &str| SearchNotesRequest {
        page_size: 10,
        page_token: page_token.to_owned(),
        ..typed(query)
    };
    let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = ada.search(page("apple", &token)).await.unwrap();
        let results = answer.results.into_iter();
        found.extend(results.map(|one| (one.score, one.note.unwrap())));
        (token, pages) = (answer.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
        for (who, query) in [(&bob, "apple"), (&ada, "apples")] {
            let refused = who.search(page(query, &token)).await.unwrap_err();
            assert_field(&refused, reason::INVALID_FIELD, "page_token");
        }
        // What comes meanwhile moves nothing.
        ada.write("Pear", "a pear is no apple", &[]).await;
    }
    assert!(found.is_sorted_by(|a, b| (a.0, &a.1.id) > (b.0, &b.1.id)), "{found:?}");
    let mut apples: Vec<_> = found.into_iter().map(|(_, note)| note.title).collect();
    apples.retain(|title| title != "Pear");
    apples.sort();
    let mut titles = titles;
    titles.sort();
    assert_eq!((apples, pages), (titles, 3));
}

#[tokio::test]
async fn any_text_can_be_stored_and_its_beginning_is_found() {
    let mut system = System::new().await;
    system.environment.push(("OPERATION_LEASE_SECS", "30".to_owned()));
    system.start_all(None).await;
    let client = system.client("ada");
    let fill = |text: &str, size: usize| text.repeat(size / text.len());
    for (title, body) in [
        ("largest", fill("abc def ", 16 * MIB - 64)),
        ("one word", fill("x", MIB)),
        ("many words", (0..20_000).fold(String::new(), |all, n| format!("{all} {n:x}"))),
        ("letters", fill("a b c d e f g ", 70_000)),
        ("compounds", fill("𒀀-𒀁-𒀂-𒀃-", 70_000)),
        ("addresses", fill("https://𒀀.example/𒀁/x?y=𒀂 ", 70_000)),
        ("quotes", fill("'\\\" <-> & | ! ", 70_000)),
    ] {
        client.write(title, &format!("beginning {body} ending"), &[]).await;
    }
    assert_eq!(client.titles("beginning").await.len(), 7);
    assert!(client.titles("ending").await.len() < 7);
    assert_eq!(client.titles("largest").await, ["largest"]);
}

#[tokio::test]
async fn a_vector_makes_a_search_hybrid() {
    let system = System::start().await;
    let client = system.client("ada");
    let ids = [
        client.write("Both", "the whale swims", &[]).await,
        client.write("Words", "a whale is mentioned", &[]).await,
        client.write("Meaning", "a large animal of the sea", &[]).await,
        client.write("Neither", "bread and butter", &[]).await,
    ];
    let vector = |near: f32| {
        let mut vector = vec![0.0; 1536];
        (vector[0], vector[1]) = (near, 1.0 - near);
        vector
    };
    let entities = EntityServiceClient::new(system.channel(Name::Entity));
    for (id, near) in ids.iter().zip([0.9, 0.2, 0.8, 0.1]) {
        let request = UpsertVectorsRequest {
            user_id: "ada".to_owned(),
            entity_id: id.clone(),
            embedding_model: "text-embedding-3-small".to_owned(),
            vectors: vec![EntityVector { chunk: 0, embedding: vector(near) }],
        };
        entities.clone().upsert_vectors(request).await.unwrap();
    }
    let hybrid = |query: &str, page_token: &str| SearchNotesRequest {
        query_vector: vector(1.0),
        page_size: 2,
        page_token: page_token.to_owned(),
        ..typed(query)
    };
    let titles = |answer: &SearchNotesResponse| -> Vec<String> {
        answer.results.iter().map(|one| one.note.clone().unwrap().title).collect()
    };
    let first = client.search(hybrid("whale", "")).await.unwrap();
    assert_eq!(
        (titles(&first), first.mode.as_str()),
        (vec!["Both".into(), "Words".into()], "hybrid")
    );
    let last = client.search(hybrid("whale", &first.next_page_token)).await.unwrap();
    assert_eq!(
        (titles(&last), last.next_page_token.as_str()),
        (vec!["Meaning".into(), "Neither".into()], "")
    );
    // By meaning alone; and nothing of another user's.
    let meaning = client.search(hybrid("", "")).await.unwrap();
    assert_eq!(titles(&meaning), ["Both", "Meaning"]);
    assert!(system.client("bob").search(hybrid("whale", "")).await.unwrap().results.is_empty());
    let keyword = SearchNotesRequest { mode: "keyword".to_owned(), ..hybrid("whale", "") };
    assert_eq!(client.search(keyword).await.unwrap().mode, "keyword");
    let none = SearchNotesRequest { mode: "hybrid".to_owned(), ..typed("whale") };
    assert_field(&client.search(none).await.unwrap_err(), reason::INVALID_FIELD, "query_vector");
}

#[tokio::test]
async fn the_http_edge_searches_in_both_forms_of_a_query() {
    let system = System::start().await;
    system.client("ada").write("Sea", "the deep sea", &["x"]).await;
    let edge = system.edge("ada");
    let canonical = edge.query("notes.search", &json!({ "query": "deep", "limit": 5 })).await;
    let plain = edge.request(Method::GET, "/trpc/notes.search?query=deep&limit=5");
    for (status, body) in [canonical, answer(plain).await] {
        assert_eq!(status, 200, "{body}");
        let data = &body["result"]["data"];
        assert_eq!(data["results"][0]["note"]["title"], "Sea", "{body}");
        assert_eq!(data["results"][0]["snippet"], "the **deep** sea", "{body}");
        assert_eq!((&data["mode"], &data["nextPageToken"]), (&json!("keyword"), &json!("")));
    }
    let empty = answer(edge.request(Method::GET, "/trpc/notes.search")).await;
    assert_bad_field(&empty, "query");
    let many = answer(edge.request(Method::GET, "/trpc/notes.search?query=x&limit=many")).await;
    assert_bad_field(&many, "limit");
}
