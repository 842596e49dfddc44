//! Names of the standard D-Bus errors.
//!
//! Clients choose fallbacks by these names: they are API, never to be reworded.

macro_rules! names {
    ($($name:ident = $text:literal;)*) => {$(
        #[doc = concat!("`org.freedesktop.DBus.Error.", $text, "`")]
        pub const $name: &str = concat!("org.freedesktop.DBus.Error.", $text);
    )*};
}

names! {
    FAILED = "Failed";
    NO_MEMORY = "NoMemory";
    SERVICE_UNKNOWN = "ServiceUnknown";
    NAME_HAS_NO_OWNER = "NameHasNoOwner";
    NO_REPLY = "NoReply";
    IO_ERROR = "IOError";
    NOT_SUPPORTED = "NotSupported";
    LIMITS_EXCEEDED = "LimitsExceeded";
    ACCESS_DENIED = "AccessDenied";
    TIMEOUT = "Timeout";
    DISCONNECTED = "Disconnected";
    INVALID_ARGS = "InvalidArgs";
    FILE_NOT_FOUND = "FileNotFound";
    FILE_EXISTS = "FileExists";
    UNKNOWN_METHOD = "UnknownMethod";
    UNKNOWN_OBJECT = "UnknownObject";
    UNKNOWN_INTERFACE = "UnknownInterface";
    UNKNOWN_PROPERTY = "UnknownProperty";
    PROPERTY_READ_ONLY = "PropertyReadOnly";
    UNIX_PROCESS_ID_UNKNOWN = "UnixProcessIdUnknown";
    INVALID_SIGNATURE = "InvalidSignature";
    INCONSISTENT_MESSAGE = "InconsistentMessage";
    INTERACTIVE_AUTHORIZATION_REQUIRED = "InteractiveAuthorizationRequired";
}
