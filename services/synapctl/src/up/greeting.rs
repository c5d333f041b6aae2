//! What `up` prints when everything is ready.

use std::time::Duration;

use synap_auth::Secret;
use synap_types::{SystemClock, UserId};

use super::{Addresses, UpArgs, database::Database};

/// Whom the development token names.
const USER: &str = "dev@localhost";

pub(super) fn print(
    args: &UpArgs,
    addresses: &Addresses,
    database: &Database,
    secret: Option<&Secret>,
) {
    let Addresses { gateway, http, content, blobs, entity, event } = addresses;
    println!(
        "
Synap storage {version}
  gateway          gRPC {gateway}, HTTP http://{http}
  content-service  gRPC {content}, signed URLs of a local store http://{blobs}
  entity-service   gRPC {entity}
  event-service    gRPC {event}
  database         {database}
  data             {data}",
        version = env!("CARGO_PKG_VERSION"),
        database = database.description(),
        data = args.data_dir.display(),
    );
    if let Some(token) = secret.and_then(token) {
        println!(
            "
A token for {USER}, good for 24 hours:
  export TOKEN={token}"
        );
    }
    println!(
        r##"
A first note:
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"content": "# Hello\n\nMy first note."}}' \
      {gateway} synap.gateway.v1.NoteService/CreateNote
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '{{"id": "<its id>", "include_content": true}}' \
      {gateway} synap.gateway.v1.NoteService/GetNote
  curl http://{http}/trpc/notes.create -H "Authorization: Bearer $TOKEN" \
      -H 'Content-Type: application/json' -d '{{"content": "From curl", "autoEnrich": false}}'
"##
    );
}

fn token(secret: &Secret) -> Option<String> {
    let user = UserId::parse(USER).ok()?;
    Some(synap_auth::issue_hs256(secret, &user, Duration::from_hours(24), &SystemClock))
}
