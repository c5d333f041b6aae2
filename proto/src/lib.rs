//! The wire: the code generated from `synap/<context>/v1/*.proto`, the descriptors that reflection
//! serves, the reasons that errors carry, and the checks that a field goes through on receipt.

pub mod field;
pub mod reason;

#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod generated {
    pub mod content {
        tonic::include_proto!("synap.content.v1");
    }
    pub mod entity {
        tonic::include_proto!("synap.entity.v1");
    }
    pub mod event {
        tonic::include_proto!("synap.event.v1");
    }
    pub mod gateway {
        tonic::include_proto!("synap.gateway.v1");
    }
}

/// `synap.content.v1`
pub use generated::content;
/// `synap.entity.v1`
pub use generated::entity;
/// `synap.event.v1`
pub use generated::event;
/// `synap.gateway.v1`
pub use generated::gateway;

/// The protos of a package with their comments and what they import, as an encoded
/// `FileDescriptorSet`: what reflection serves. Empty for a package that is none of ours.
#[must_use]
pub fn descriptors(package: &str) -> &'static [u8] {
    macro_rules! compiled {
        ($context:literal) => {
            include_bytes!(concat!(env!("OUT_DIR"), "/", $context, ".bin"))
        };
    }
    match package {
        "synap.content.v1" => compiled!("content"),
        "synap.entity.v1" => compiled!("entity"),
        "synap.event.v1" => compiled!("event"),
        "synap.gateway.v1" => compiled!("gateway"),
        _ => &[],
    }
}
