//! The types of values: each knows its text form, both ways.

mod address;
mod base64;
mod calendar;
mod command;
mod condition;
mod control;
mod credentials;
mod device;
mod image;
mod later;
mod misc;
mod name;
mod names;
mod number;
mod open_file;
mod path;
mod resources;
mod seccomp;
mod time;
mod version;
mod words;

pub use self::base64::{decode_base64, encode_base64};
pub use address::{Listen, ListenKind, NETLINK_FAMILIES, SocketAddress, UNIX_PATH_MAX, VsockKind};
pub use calendar::Calendar;
pub use command::{
    ExecCommand, Privilege, Split, split_names, split_raw, split_words, unescape, unescape_bytes,
};
pub use condition::{Condition, ConditionKind};
pub use control::{
    AddressPrefix, AllowList, BindRule, BlockIoWeights, BpfProgram, Controllers, FileSystemList,
    InterfaceList, IoLatencies, IoLimits, IoWeights, NftSet, PerDevice, PressureLimit,
};
pub use credentials::{
    Credential, CredentialPattern, CredentialSource, INPUT_MAX, InputData, is_credential_name,
};
pub use device::DeviceRule;
pub use image::{
    ExtensionImage, ImageOption, ImagePolicy, MountImage, Partition, PartitionUse, RootHash,
    RootHashSignature,
};
pub use later::{Attribute, BpfDelegation, Concurrency, Quota, Refresh};
pub use misc::{
    CAPABILITIES, CapabilitySet, Delegate, EnvironmentFile, ExecDirectory, ExitStatusSet, LimitBytes,
    LimitCount, LimitMicroseconds, LimitNice, LimitSeconds, ResourceLimit, SIGNALS, SIGRTMAX, SIGRTMIN,
    Signal, capability_number, exit_status_name, parse_bool, parse_mode, parse_size,
};
pub use name::{
    NameError, NameHasher, UnitKind, UnitName, ephemeral_tree, escape, name_hash, path_escape, path_unescape,
    private_tmp_name, unescape_name,
};
pub use names::{
    BusName, CgroupName, LogNamespace, PlainName, ProtectHostname, Reference, SecurityLabel, VariableMatch,
    VariableName,
};
pub use number::{
    Amount, BlockIoWeight, CpuPriority, CpuQuota, CpuShares, IoPriority, NiceLevel, OomScore,
    PressureDuration, Size, Weight, Within,
};
pub(crate) use number::{number, of_block_io};
pub use open_file::{LogPattern, OpenFile, is_descriptor_name, is_log_field};
pub use path::{
    AbsolutePath, BindPath, MarkedPath, PathLines, PidFilePath, SearchPath, TemporaryMount, WorkingDirectory,
};
pub use resources::{CoredumpFilter, CpuAffinity, Nanoseconds, NumaMask, NumberSet, PROCESSORS_MAX};
pub use seccomp::{
    AddressFamilies, Architectures, Listed, Namespaces, SyscallAction, SyscallFilter, system_calls,
};
pub use time::Timespan;
pub use version::compare_versions;
pub use words::*;
