//! The code generated from `proto/`, and the conversions between it and our typed ids.
//!
//! Never depends on a service, a database or Redis.

pub mod convert;

/// `touchline.push.v1`: api → gateway. The proto file is the specification.
pub mod push {
    #[expect(
        missing_docs,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated; the proto file carries the comments"
    )]
    mod generated {
        tonic::include_proto!("touchline.push.v1");
    }
    pub use generated::*;
}

/// `touchline.notify.v1`: api → notifier. The proto file is the specification.
pub mod notify {
    #[expect(
        missing_docs,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated; the proto file carries the comments"
    )]
    mod generated {
        tonic::include_proto!("touchline.notify.v1");
    }
    pub use generated::*;
}

/// The encoded descriptors of all our protos, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/touchline_descriptor.bin"));
