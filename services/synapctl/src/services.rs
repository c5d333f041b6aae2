//! Where the services are: the same flags and variables for every command.

use clap::Args;
use synap_rpc::Channel;

macro_rules! service_url {
    ($(#[$comment:meta])* $name:ident, $field:ident, $service:literal, $env:literal, $default:literal) => {
        #[derive(Debug, Clone, Args)]
        pub(crate) struct $name {
            $(#[$comment])*
            #[arg(long, global = true, env = $env, default_value = $default)]
            pub(crate) $field: String,
        }

        impl $name {
            /// A connection, which is made when it is needed.
            ///
            /// # Errors
            /// If the URL is none.
            pub(crate) fn connect(&self) -> anyhow::Result<Channel> {
                Ok(Channel::connect($service, &self.$field)?)
            }
        }
    };
}

service_url!(
    /// Where content-service is.
    ContentUrl, content_url, "content-service", "CONTENT_URL", "http://127.0.0.1:50052"
);
service_url!(
    /// Where entity-service is.
    EntityUrl, entity_url, "entity-service", "ENTITY_URL", "http://127.0.0.1:50053"
);
service_url!(
    /// Where event-service is.
    EventUrl, event_url, "event-service", "EVENT_URL", "http://127.0.0.1:50054"
);
