//! A process's environment (systemd.exec(5), "Environment Variables in Spawned Processes"), and `$VAR` in its arguments.
//!
//! Both lanes use it: PID 1 for plain contexts, which name no user and no file, and the executor for all others.

use muster_unit::ExecSection;
use std::collections::BTreeMap;

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// Puts it together, the later winning: PID 1's own, the login's, `Environment=`, `EnvironmentFile=` (as `from_files`), what
/// is made for this process; then `UnsetEnvironment=`. `own_number` are variables with the process's own number.
pub fn assemble(
    base: &[String],
    login: &[(&str, &str)],
    exec: &ExecSection,
    from_files: &[(String, String)],
    own: &[String],
    own_number: &[(&str, &str)],
) -> Environment {
    let mut all = Environment::new();
    let split = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    all.extend(base.iter().filter_map(split));
    all.extend(login.iter().map(owned));
    all.extend(exec.environment().iter().cloned());
    all.extend(from_files.iter().cloned());
    all.extend(own.iter().filter_map(split));
    all.extend(own_number.iter().map(owned));
    for name in exec.unset_environment() {
        let (name, value) = name.split_once('=').map_or((&**name, None), |(name, value)| (name, Some(value)));
        if value.is_none_or(|value| all.get(name).is_some_and(|known| known == value)) {
            all.remove(name);
        }
    }
    all
}

/// What the manager gives to all, `ExecSearchPath=` for its `PATH`, and `PassEnvironment=`: of PID 1's own environment what is
/// asked for.
pub fn base(given: &[String], exec: &ExecSection) -> Vec<String> {
    let searched: Vec<&str> = exec.exec_search_path().0.iter().map(|path| path.as_str()).collect();
    let path = (!searched.is_empty()).then(|| format!("PATH={}", searched.join(":")));
    let passed =
        |name: &muster_unit::VariableName| Some(format!("{}={}", name.0, std::env::var(&name.0).ok()?));
    given.iter().cloned().chain(path).chain(exec.pass_environment().iter().filter_map(passed)).collect()
}

/// Expands `$VAR` and `${VAR}` in arguments (systemd.service(5), "Command Lines"): a word that is `$VAR` alone is split
/// at white space, with quotes around what belongs together; within a word the value stands as it is; `$$` is a dollar.
pub fn expand_arguments(argv: &[String], environment: &Environment) -> Vec<String> {
    let mut out = Vec::new();
    for word in argv {
        let alone = word.strip_prefix('$').filter(|name| muster_unit::setting::is_variable(name));
        match alone {
            Some(name) => out.extend(
                environment
                    .get(name)
                    .into_iter()
                    .flat_map(|value| muster_unit::split_words(value).unwrap_or_else(|_| plain_words(value))),
            ),
            None => out.push(expand_word(word, environment)),
        }
    }
    out
}

fn plain_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn expand_word(word: &str, environment: &Environment) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((head, tail)) = rest.split_once('$') {
        out.push_str(head);
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            out.push_str(environment.get(name).map_or("", String::as_str));
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_arguments() {
        let environment = BTreeMap::from([("A".to_owned(), "x y".to_owned())]);
        let argv = ["$A", "${A}z", "$$A", "a$B", "$NONE"].map(str::to_owned);
        assert_eq!(expand_arguments(&argv, &environment), ["x", "y", "x yz", "$A", "a$B"]);
    }
}
