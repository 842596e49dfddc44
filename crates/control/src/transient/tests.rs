//! What becomes of the properties that a client sends.

#![allow(clippy::unwrap_used)]
use super::*;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn a_client_can_begin_no_directive_and_no_specifier() {
    let command = Value::Array(vec![Value::Struct(vec![
        text("/bin/echo"),
        Value::Array(vec![text("/bin/echo"), text("a b\nUser=root %h \"$HOME\\")]),
        Value::Bool(true),
    ])]);
    let built = settings(UnitKind::Service, &[("ExecStart".to_owned(), command)], 1).unwrap();
    let (section, directive, line) = built.settings.first().unwrap();
    assert_eq!((section.as_str(), directive.as_str()), ("Service", "ExecStart"));
    assert_eq!(line, "-\"/bin/echo\" \"a b\\nUser=root %%h \\\"$HOME\\\\\"");
    let evil = [("Description".to_owned(), text("x\n[Service]\nExecStart=/bin/sh"))];
    assert!(settings(UnitKind::Service, &evil, 1).is_err());
}

#[test]
fn properties_become_directives() {
    let of = |kind, name: &str, value: Value| {
        settings(kind, &[(name.to_owned(), value)], 9).map(|built| built.settings).unwrap_or_default()
    };
    let setting = |section: &str, name: &str, value: &str| {
        vec![(section.to_owned(), name.to_owned(), value.to_owned())]
    };
    let service = UnitKind::Service;
    assert_eq!(
        of(service, "RuntimeMaxUSec", Value::Number(5_000_000)),
        setting("Service", "RuntimeMaxSec", "5s")
    );
    assert_eq!(
        of(service, "MemoryMax", Value::Number(i128::from(u64::MAX))),
        setting("Service", "MemoryMax", "infinity")
    );
    assert_eq!(
        of(service, "CPUQuotaPerSecUSec", Value::Number(200_000)),
        setting("Service", "CPUQuota", "20%")
    );
    assert_eq!(of(service, "UMask", Value::Number(0o77)), setting("Service", "UMask", "0077"));
    assert_eq!(
        of(service, "StandardInputData", Value::Bytes(b"ab".to_vec())),
        setting("Service", "StandardInputData", "YWI=")
    );
    assert_eq!(of(UnitKind::Scope, "Description", text("5%")), setting("Unit", "Description", "5%%"));
    assert_eq!(of(UnitKind::Scope, "User", text("x")), Vec::new());
    assert_eq!(
        settings(UnitKind::Scope, &[("PIDs".to_owned(), Value::Array(vec![Value::Number(0)]))], 9)
            .unwrap()
            .pids,
        [9]
    );
    assert!(changes(service, &[("User".to_owned(), text("x"))]).is_err());
    assert!(changes(service, &[("CPUWeight".to_owned(), Value::Number(5))]).is_ok());
}
