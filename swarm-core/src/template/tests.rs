use std::sync::Arc;

use super::*;
use crate::id::IdSource;
use crate::model::{MountType, Platform, ServiceAnnotations, VolumeOptions};

fn task(slot: u64) -> Task {
    let mut ids = IdSource::seeded(1);
    let labels = [("tier", "db"), ("com.example/x", "dotted")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let annotations =
        ServiceAnnotations { name: "web".into(), labels: labels.into(), ..Default::default() };
    Task {
        id: ids.next(),
        service_id: ids.next(),
        node_id: Some(ids.next()),
        slot,
        annotations: Arc::new(annotations),
        ..Default::default()
    }
}

fn description() -> NodeDescription {
    NodeDescription {
        hostname: "host-1".into(),
        platform: Platform {
            os: "linux".into(),
            architecture: "x86_64".into(),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn expanded(task: &Task, text: &str) -> Result<String, String> {
    let description = description();
    let context = Context { task, node: task.node_id.unwrap(), description: &description };
    context.text(text).map_err(|problem| problem.text)
}

#[test]
fn every_member_of_swarms_templates() {
    let task = task(3);
    let node = task.node_id.unwrap();
    let table = [
        ("plain", "plain".to_owned()),
        ("{{.Service.ID}}", task.service_id.to_string()),
        ("{{ .Service.Name }}-x", "web-x".into()),
        ("{{.Service.Labels.tier}}", "db".into()),
        (r#"{{index .Service.Labels "com.example/x"}}"#, "dotted".into()),
        (r#"{{index .Service.Labels "absent"}}"#, String::new()),
        ("{{.Node.ID}}", node.to_string()),
        ("{{.Node.Hostname}}", "host-1".into()),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64".into()),
        ("{{.Task.ID}}", task.id.to_string()),
        ("{{.Task.Name}}", format!("web.3.{}", task.id)),
        ("{{.Task.Slot}}", "3".into()),
    ];
    for (text, expected) in table {
        assert_eq!(expanded(&task, text), Ok(expected), "{text}");
    }
    let global = self::task(0);
    let node = global.node_id.unwrap().to_string();
    assert_eq!(expanded(&global, "{{.Task.Slot}}"), Ok(node), "a global task's slot");
}

#[test]
fn gos_language_as_far_as_it_goes() {
    let task = task(3);
    let table = [
        ("a {{- .Task.Slot -}} b", "a3b"),
        ("a {{- /* gone */ -}} b{{/* }} */}}", "ab"),
        (r#"{{"}}"}}{{`a"b`}}"#, r#"}}a"b"#),
        ("{not a template}", "{not a template}"),
        ("{{if eq .Task.Slot \"3\"}}three{{else}}other{{end}}", "three"),
        ("{{if eq .Task.Slot \"1\" \"2\"}}a{{else if ne .Task.Slot \"3\"}}b{{else}}c{{end}}", "c"),
        ("{{if and .Service.Name (not .Node.Hostname)}}a{{end}}b", "b"),
        ("{{or \"\" .Node.Hostname}}", "host-1"),
        ("{{with .Service}}{{.Name}}-{{$.Task.Slot}}{{end}}", "web-3"),
        ("{{with \"\"}}a{{else}}b{{end}}", "b"),
        (
            "{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}",
            "com.example/x=dotted;tier=db;",
        ),
        ("{{range .Service.Labels}}{{.}} {{end}}", "dotted db "),
        ("{{$n := .Service.Name}}{{if true}}{{$n = \"x\"}}{{end}}{{$n}}", "x"),
        (r#"{{join "." .Service.Name .Task.Slot "local"}}"#, "web.3.local"),
        (r#"{{.Task.Slot | printf "%s-%s" .Service.Name}}"#, "web-3"),
        (r#"{{printf "%q %d %t %v%%" "a" (len "abc") true 7}}"#, "\"a\" 3 true 7%"),
        ("{{print 1 2 \"a\" 3}}{{println \"b\" 1}}", "1 2a3b 1\n"),
        ("{{(index .Service.Labels \"tier\")}}", "db"),
        ("{{(.Node.Platform).OS}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{'a'}}", "linux true true 97"),
        ("{{range .Service.Labels}}{{if eq . \"db\"}}{{break}}{{end}}{{.}}{{end}}", "dotted"),
        ("{{range .Service.Labels}}{{if ne . \"db\"}}{{continue}}{{end}}{{.}}{{end}}", "db"),
        (r#"{{define "x"}}[{{.}}{{$}}]{{end}}{{template "x" .Task.Slot}}"#, "[33]"),
        (r#"{{block "y" .Service}}{{.Name}}{{end}}{{template "y" .Service}}"#, "webweb"),
        (
            r#"{{html "<a b='c'>&"}} {{urlquery "a b&ü"}} {{js "it's <"}}"#,
            r"&lt;a b=&#39;c&#39;&gt;&amp; a+b%26%C3%BC it\'s \u003C",
        ),
        (r#"{{slice .Service.Name 1}}{{slice "abc" 0 1}}"#, "eba"),
        ("{{.Service.Labels}}", "map[com.example/x:dotted tier:db]"),
    ];
    for (text, expected) in table {
        assert_eq!(expanded(&task, text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_expanded_says_why() {
    let table = [
        ("{{.Task.Slot", "unclosed action"),
        ("{{/* a", "unclosed comment"),
        ("{{.Node.Labels.x}}", "can't evaluate field Labels: there is no .Node.Labels"),
        ("{{.Task.Slot.x}}", "can't evaluate field x in type string"),
        ("{{.Service.Labels.absent}}", "map has no entry for key \"absent\""),
        ("{{env \"HOME\"}}", "function \"env\" not defined"),
        ("{{secret \"a\"}}", "function \"secret\" not defined"),
        ("{{nope}}", "function \"nope\" not defined"),
        ("{{call .Task.ID}}", "call of what is no function"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{define \"x\"}}", "unexpected EOF"),
        ("{{template \"x\"}}", "template \"x\" not defined"),
        ("{{slice \"abc\" 2 1}}", "invalid slice index: 2 > 1"),
        ("{{slice \"abc\" 4}}", "index out of range: 4"),
        ("{{printf \"%x\" \"a\"}}", "printf: %x is not supported"),
        ("{{if .Task.ID}}a", "unexpected EOF"),
        ("a{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{.Task.ID | .Task.Name}}", "non executable command in pipeline stage 2"),
        ("{{.Task.ID \"a\"}}", "can't give argument to non-function"),
        ("{{$x}}", "undefined variable \"$x\""),
        ("{{eq 1 \"1\"}}", "incompatible types for comparison"),
        ("{{(.Task.ID}}", "unclosed left paren"),
        ("{{}}", "missing value for command"),
        ("{{.Node}}", "can't print .Node: name a member"),
    ];
    for (text, expected) in table {
        assert_eq!(expanded(&task(1), text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn no_text_exhausts_stack_or_time() {
    let deep = format!("{{{{{}}}}}", "(".repeat(10_000));
    assert_eq!(expanded(&task(1), &deep), Err("parentheses nest too deep".into()));
    let blocks = "{{if true}}".repeat(10_000);
    assert_eq!(expanded(&task(1), &blocks), Err("blocks nest too deep".into()));
    let endless = r#"{{define "x"}}{{template "x"}}{{end}}{{template "x"}}"#;
    assert_eq!(expanded(&task(1), endless), Err("templates call each other too deep".into()));
    let doubled = format!("{{{{$x := \"ab\"}}}}{}", "{{$x = print $x $x}}".repeat(40));
    assert_eq!(expanded(&task(1), &doubled), Err("the template does not come to an end".into()));
    let range = "{{range .Service.Labels}}{{with $}}";
    let long = format!("{}x{}", range.repeat(20), "{{end}}{{end}}".repeat(20));
    assert_eq!(expanded(&task(1), &long), Err("the template does not come to an end".into()));
}

#[test]
fn a_specification_is_expanded_where_swarm_expands_it() {
    let task = task(2);
    let volume = VolumeOptions {
        labels: [("slot".to_owned(), "{{.Task.Slot}}".to_owned())].into(),
        driver_config: Some(Driver {
            options: [("o".to_owned(), "{{.Node.Hostname}}".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = ContainerSpec {
        hostname: "{{.Service.Name}}-{{.Task.Slot}}".into(),
        env: vec!["SLOT={{.Task.Slot}}".into(), "BARE".into()],
        args: vec!["{{.Task.Slot}}".into()],
        labels: [("a".to_owned(), "{{.Task.Slot}}".to_owned())].into(),
        mounts: vec![Mount {
            kind: MountType::Volume,
            source: "data-{{.Task.Slot}}".into(),
            target: "/data/{{.Service.Name}}".into(),
            volume: Some(volume),
            ..Default::default()
        }],
        ..Default::default()
    };
    let description = description();
    let context = Context { task: &task, node: NodeId::NIL, description: &description };
    let spec = context.expand(&spec).unwrap();
    assert_eq!(spec.hostname, "web-2");
    assert_eq!(spec.env, ["SLOT=2", "BARE"]);
    assert_eq!(spec.args, ["{{.Task.Slot}}"], "Swarm leaves arguments alone");
    assert_eq!(spec.labels["a"], "{{.Task.Slot}}", "and labels of containers");
    assert_eq!((&*spec.mounts[0].source, &*spec.mounts[0].target), ("data-2", "/data/web"));
    let volume = spec.mounts[0].volume.as_ref().unwrap();
    assert_eq!(volume.labels["slot"], "2");
    assert_eq!(volume.driver_config.as_ref().unwrap().options["o"], "host-1");

    let error = |spec: ContainerSpec| context.expand(&spec).unwrap_err().to_string();
    assert_eq!(
        error(ContainerSpec { env: vec!["A={{.Nope}}".into()], ..Default::default() }),
        "expanding env failed: expanding env \"A={{.Nope}}\": template: expansion:1: \
         can't evaluate field Nope: there is no .Nope"
    );
    assert_eq!(
        error(ContainerSpec { hostname: "\n{{nope}}".into(), ..Default::default() }),
        "expanding hostname failed: template: expansion:2: function \"nope\" not defined"
    );
    let mount = Mount { target: "{{".into(), ..Default::default() };
    assert_eq!(
        error(ContainerSpec { mounts: vec![mount], ..Default::default() }),
        "expanding mounts failed: expanding mount target \"{{\": template: expansion:1: \
         unclosed action"
    );
}

#[test]
fn secrets_and_configs_see_their_tasks_environment_secrets_and_configs() {
    let task = task(1);
    let description = description();
    let context = Context { task: &task, node: NodeId::NIL, description: &description };
    let env = ["USER=root".to_owned(), "BARE".to_owned()];
    let (password, other) = (SecretBytes::from(vec![0xff, b'p']), Blob((*b"{{.No}}").into()));
    let functions = Functions {
        env: &env,
        secrets: vec![("password", &password)],
        configs: vec![("/etc/other", &other)],
    };
    let golang = Driver { name: DRIVER.into(), ..Default::default() };
    let text = concat!(
        r#"{{env "USER"}}{{env "NONE"}}@{{.Node.Hostname}} {{secret "password"}}"#,
        r#" {{config "/etc/other"}}"#
    );
    let payload = |text: &str, is_secret| {
        context.payload("config x", &golang, text.as_bytes(), &functions, is_secret)
    };
    let expanded = payload(text, false).unwrap();
    assert_eq!(expanded.expose(), b"root@host-1 \xffp {{.No}}", "bytes as they are, once");
    let error = |text, is_secret| payload(text, is_secret).unwrap_err().to_string();
    assert_eq!(
        error(r#"{{secret "nope"}}"#, false),
        "failed to expand templated config x: template: expansion:1: secret target nope not found"
    );
    assert_eq!(
        error("\n{{hunter2}}", true),
        "failed to expand templated config x: template: expansion:2: \
         the template cannot be expanded",
        "an error quotes no secret"
    );
    let jinja = Driver { name: "jinja".into(), ..Default::default() };
    let unknown = context.payload("config x", &jinja, b"a", &functions, false).unwrap_err();
    assert_eq!(unknown.problem, "unrecognized template type");
}

#[test]
fn whatever_is_written_is_expanded_or_refused() {
    const WORDS: [&str; 40] = [
        "{{",
        "}}",
        "{{-",
        "-}}",
        "{{ ",
        " }}",
        "/*",
        "*/",
        "\"",
        "`",
        "'",
        "\\",
        "(",
        ")",
        "|",
        ".",
        "$",
        "$x",
        ":=",
        "=",
        ",",
        "-",
        "1",
        "ü",
        "\n",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "template",
        "block",
        "break",
        "printf",
        "slice",
        "index",
        ".Service.Labels",
        ".Task.Slot",
        "\"x\"",
    ];
    let (mut ids, task) = (IdSource::seeded(11), task(1));
    for _ in 0..20_000 {
        let words = 1 + ids.below(14);
        let mut text = "{{".to_owned();
        for _ in 0..words {
            text += WORDS[usize::try_from(ids.below(WORDS.len() as u64)).expect("small")];
            text += ["", " "][usize::try_from(ids.below(2)).expect("small")];
        }
        text += "}}";
        if let Ok(expanded) = expanded(&task, &text) {
            assert!(expanded.len() <= 4 * text.len() + 100, "{text}: {expanded}");
        }
    }
}
