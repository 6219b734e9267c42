use super::*;
use crate::sim::{Size, draw};

/// The property that makes text the form of every script: nothing of a drawn one is lost.
#[test]
fn every_drawn_script_is_read_as_it_was_written() {
    for seed in 0..400 {
        let size = if seed % 4 == 0 { Size::large() } else { Size::small() };
        let drawn = draw(seed, &size);
        let text = drawn.to_string();
        match text.parse::<Script>() {
            Ok(read) => {
                for (read, drawn) in read.entries.iter().zip(&drawn.entries) {
                    assert_eq!(read, drawn, "seed {seed}");
                }
                assert_eq!(read, drawn, "seed {seed}");
            }
            Err(error) => panic!("seed {seed}: {error}\n{text}"),
        }
    }
}

#[test]
fn what_a_person_writes_is_written_back_in_one_form() {
    let script: Script = r#"
        # The first line says the rule.
        managers 3
        workers 2
        seed 7
        lost worker2
         1s  docker network create --subnet=10.1.0.0/29 narrow
         2s  docker service create --name job --mode replicated-job --replicas 5 --max-concurrent 2 tries:1
        90s  docker service update --replicas 3 job     # scale
        2m   docker service update --constraint-add node.labels.zone==a --force job
        2m   always job 1-3 running for 1m30s
        3m   clock manager2 -1h for 500ms
        4m   expect job 1+ tasks failed "exit (1)"
    "#
    .parse()
    .unwrap();
    let text = "managers 3
workers 2
seed 7
heal 4m
lost worker2
   1s  docker network create --driver overlay --subnet 10.1.0.0/29 narrow
   2s  docker service create --name job --mode replicated-job --replicas 5 --max-concurrent 2 tries:1
1m30s  docker service scale job=3
   2m  docker service update --constraint-add node.labels.zone==a --force job
   2m  always job 1-3 running for 1m30s
   3m  clock manager2 -1h for 500ms
   4m  expect job 1+ tasks failed \"exit (1)\"
";
    assert_eq!(script.to_string(), text);
    assert_eq!(text.parse(), Ok(script));
}

#[test]
fn errors_name_the_line_and_the_word() {
    for (text, wrong) in [
        ("\n5 docker service rm web", r#"line 2: "5" is no time"#),
        ("1s docker service create --name web --replica 2 a:1", "--replica is no flag"),
        ("1s docker service create --name web --replicas two a:1", r#"--replicas: "two""#),
        ("1s docker service create --name web", "--name lacks a value"),
        ("1s docker service create a:1", "--name is missing"),
        ("1s docker service update web", "the flags are missing"),
        ("1s docker service explode web", "`docker service explode web` is nothing"),
        ("1s pause worker2", "there is no worker2: this script has 1 managers and 1 workers"),
        ("1s pause server", r#""server" is no node"#),
        ("1s crash manager worker1", "worker1 is no manager"),
        ("1s pouse worker1", r#""pouse worker1" is no command, no expectation and no fault"#),
        ("1s expect web 4 runing", r#""web 4 runing" cannot be expected"#),
        ("1s expect web four running", r#""four" is no count"#),
        ("1s pause worker1\nworkers 2", r#"line 2: "workers" must stand before"#),
        ("1s docker service update --constraint \"a", "the quote of"),
    ] {
        let error = text.parse::<Script>().unwrap_err().to_string();
        assert!(error.contains(wrong), "{text:?} says {error:?} instead of {wrong:?}");
    }
}

/// What `docker service update` adds and removes.
#[test]
fn flags_of_lists_add_and_remove() {
    let mut spec =
        flags::spec(&["--name", "web", "--constraint", "a==b", "--publish", "8080:80", "i"])
            .unwrap();
    flags::set(&mut spec, "constraint-add", "c==d").unwrap();
    flags::set(&mut spec, "constraint-rm", "a==b").unwrap();
    flags::set(&mut spec, "publish-rm", "8080:80").unwrap();
    assert_eq!(flags::spec_text(&spec), "--name web --constraint c==d i");
    assert!(flags::set(&mut spec, "replicas-rm", "1").is_err());
    assert!(flags::set(&mut spec, "replicas-add", "1").is_err());
}
