//! What of the commands stands on its own, with the tests beside it: in this binary, because the library
//! as one of its own would be linked with all services, too.

#![allow(dead_code, reason = "only the tests are wanted")]

#[path = "../../src/age.rs"]
mod age;
#[path = "../../src/bench/stream/body.rs"]
mod body;
#[path = "../../src/bench/notes/kind.rs"]
mod kind;
#[path = "../../src/bench/load.rs"]
mod load;
#[path = "../../src/looks/portions.rs"]
mod portions;
#[path = "../../src/statistics.rs"]
mod statistics;
