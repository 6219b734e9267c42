//! Pure: `Privileges`, which the model passes through unread, as the engine's security options
//! (moby: `applyPrivileges`).

use serde_json::Value;
use swarm_core::executor::ExecError;
use swarm_core::model::{Blob, ConfigReference, SecretBytes};

/// The security options of a container with these privileges and configs.
///
/// # Errors
/// `Rejected` for a profile that cannot be read, or credentials in a config that is not there.
pub(super) fn options(
    privileges: Option<&Value>,
    configs: &[(ConfigReference, SecretBytes)],
) -> Result<Vec<String>, ExecError> {
    let at = |path: &str| privileges.and_then(|privileges| privileges.pointer(path));
    let word = |path| at(path).and_then(Value::as_str).filter(|word| !word.is_empty());
    let mut options = Vec::new();
    for (path, scheme) in
        [("/CredentialSpec/File", "file"), ("/CredentialSpec/Registry", "registry")]
    {
        let place = word(path);
        options.extend(place.map(|place| format!("credentialspec={scheme}://{place}")));
    }
    if let Some(id) = word("/CredentialSpec/Config") {
        options.push(format!("credentialspec=raw://{}", credentials(id, configs)?));
    }
    if at("/SELinuxContext/Disable") == Some(&Value::Bool(true)) {
        options.push("label=disable".to_owned());
    }
    for (path, key) in [
        ("/SELinuxContext/User", "user"),
        ("/SELinuxContext/Role", "role"),
        ("/SELinuxContext/Level", "level"),
        ("/SELinuxContext/Type", "type"),
    ] {
        options.extend(word(path).map(|value| format!("label={key}:{value}")));
    }
    match word("/Seccomp/Mode") {
        Some("unconfined") => options.push("seccomp=unconfined".to_owned()),
        Some("custom") => options.push(format!("seccomp={}", profile(at("/Seccomp/Profile"))?)),
        _ => {}
    }
    if word("/AppArmor/Mode") == Some("disabled") {
        options.push("apparmor=unconfined".to_owned());
    }
    if at("/NoNewPrivileges") == Some(&Value::Bool(true)) {
        options.push("no-new-privileges=true".to_owned());
    }
    Ok(options)
}

/// The text of a profile, which Docker's JSON has in base64.
fn profile(profile: Option<&Value>) -> Result<String, ExecError> {
    let bytes = serde_json::from_value::<Blob>(profile.cloned().unwrap_or_default())
        .map_err(|error| ExecError::rejected(format!("the seccomp profile: {error}")))?;
    String::from_utf8(bytes.0.to_vec())
        .map_err(|_| ExecError::rejected("the seccomp profile is not text"))
}

/// The credential specification that a config holds. The engine's own agent would name the config;
/// an engine that knows no configs gets the bytes.
fn credentials(id: &str, configs: &[(ConfigReference, SecretBytes)]) -> Result<String, ExecError> {
    let (_, bytes) = configs
        .iter()
        .find(|(reference, _)| reference.config_id.as_str() == id)
        .ok_or_else(|| ExecError::rejected(format!("credential spec: no config {id}")))?;
    String::from_utf8(bytes.expose().to_vec())
        .map_err(|_| ExecError::rejected(format!("credential spec: config {id} is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use swarm_core::id::IdSource;

    fn of(privileges: Value) -> Result<Vec<String>, String> {
        options(Some(&privileges), &[]).map_err(|error| error.message)
    }

    #[test]
    fn privileges_become_the_engines_options() {
        assert_eq!(options(None, &[]).unwrap(), Vec::<String>::new());
        let all = json!({
            "SELinuxContext": {"Disable": true, "User": "u", "Role": "r", "Level": "l", "Type": "t"},
            "Seccomp": {"Mode": "custom", "Profile": "e30="},
            "AppArmor": {"Mode": "disabled"},
            "NoNewPrivileges": true,
        });
        let expected = [
            "label=disable",
            "label=user:u",
            "label=role:r",
            "label=level:l",
            "label=type:t",
            "seccomp={}",
            "apparmor=unconfined",
            "no-new-privileges=true",
        ];
        assert_eq!(of(all).unwrap(), expected);
        let none = json!({"Seccomp": {"Mode": "default"}, "AppArmor": {"Mode": "default"}});
        assert_eq!(of(none).unwrap(), Vec::<String>::new());
        let open = json!({"Seccomp": {"Mode": "unconfined"}});
        assert_eq!(of(open).unwrap(), ["seccomp=unconfined"]);
        let damaged = json!({"Seccomp": {"Mode": "custom", "Profile": "*"}});
        assert!(of(damaged).unwrap_err().starts_with("the seccomp profile: illegal base64 data"));
    }

    #[test]
    fn credentials_come_from_where_the_specification_says() {
        let file = json!({"CredentialSpec": {"File": "spec.json"}});
        assert_eq!(of(file).unwrap(), ["credentialspec=file://spec.json"]);
        let registry = json!({"CredentialSpec": {"Registry": "spec"}});
        assert_eq!(of(registry).unwrap(), ["credentialspec=registry://spec"]);
        let id = IdSource::seeded(1).next();
        let reference = ConfigReference { config_id: id, ..Default::default() };
        let configs = [(reference, SecretBytes::from(b"{}".to_vec()))];
        let config = json!({"CredentialSpec": {"Config": id.as_str()}});
        assert_eq!(options(Some(&config), &configs).unwrap(), ["credentialspec=raw://{}"]);
        assert_eq!(of(config).unwrap_err(), format!("credential spec: no config {id}"));
    }
}
