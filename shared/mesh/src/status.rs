//! The one status table: what went wrong, as one [`Code`], mapped to HTTP and to gRPC.

use http::StatusCode;
use tonic::Code as Grpc;

/// What kind of failure it is. Finer distinctions travel in the problem's own `code` text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request itself is wrong; sending it again changes nothing.
    InvalidArgument,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials, but not allowed.
    PermissionDenied,
    /// Not there, or not for this caller: the two look alike.
    NotFound,
    /// The thing exists already, or the same key came with another body.
    AlreadyExists,
    /// Valid, but not in the present state.
    FailedPrecondition,
    /// More bytes than we take.
    TooLarge,
    /// The caller asks too often.
    RateLimited,
    /// We are full or a dependency is away; nothing was done; try again.
    Unavailable,
    /// Too late. Incoming `Cancelled` and `DeadlineExceeded` both mean this.
    Timeout,
    /// Not supported here.
    Unimplemented,
    /// Our fault.
    Internal,
}

impl Code {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::TooLarge,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
        Self::Unimplemented,
        Self::Internal,
    ];

    /// The HTTP status.
    pub const fn http(self) -> StatusCode {
        match self {
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::FailedPrecondition => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC status.
    pub const fn grpc(self) -> Grpc {
        match self {
            Self::InvalidArgument => Grpc::InvalidArgument,
            Self::Unauthenticated => Grpc::Unauthenticated,
            Self::PermissionDenied => Grpc::PermissionDenied,
            Self::NotFound => Grpc::NotFound,
            Self::AlreadyExists => Grpc::AlreadyExists,
            Self::FailedPrecondition => Grpc::FailedPrecondition,
            Self::TooLarge => Grpc::OutOfRange,
            Self::RateLimited => Grpc::ResourceExhausted,
            Self::Unavailable => Grpc::Unavailable,
            Self::Timeout => Grpc::DeadlineExceeded,
            Self::Unimplemented => Grpc::Unimplemented,
            Self::Internal => Grpc::Internal,
        }
    }

    /// What an incoming gRPC status means to us.
    pub const fn from_grpc(code: Grpc) -> Self {
        match code {
            Grpc::InvalidArgument => Self::InvalidArgument,
            Grpc::Unauthenticated => Self::Unauthenticated,
            Grpc::PermissionDenied => Self::PermissionDenied,
            Grpc::NotFound => Self::NotFound,
            Grpc::AlreadyExists => Self::AlreadyExists,
            Grpc::FailedPrecondition | Grpc::Aborted => Self::FailedPrecondition,
            Grpc::OutOfRange => Self::TooLarge,
            Grpc::ResourceExhausted => Self::RateLimited,
            Grpc::Unavailable => Self::Unavailable,
            Grpc::Cancelled | Grpc::DeadlineExceeded => Self::Timeout,
            Grpc::Unimplemented => Self::Unimplemented,
            Grpc::Ok | Grpc::Unknown | Grpc::Internal | Grpc::DataLoss => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_grpc_hop() {
        for code in Code::ALL {
            assert_eq!(Code::from_grpc(code.grpc()), code);
            assert!(code.http().is_client_error() || code.http().is_server_error());
        }
    }

    #[test]
    fn a_cancelled_call_is_a_timeout() {
        assert_eq!(Code::from_grpc(Grpc::Cancelled), Code::Timeout);
    }
}
