//! Jobs through the API: what clients see of a run, and what begins the next.

use serde_json::{Value, json};
use swarm::core::model::{ServiceMode, TaskState, TaskStatus};
use swarm::core::store::{Change, Snapshot};
use swarm::core::time::Timestamp;

use super::{Api, service};

/// A job of so many tasks, two at a time.
fn job(total: u64) -> String {
    let mode = json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": total}});
    service("dump", &format!(r#","Mode":{mode}"#))
}

async fn update(api: &Api, more: &str, body: &str) {
    let dump = api.get("/services/dump").await;
    let (id, version) = (dump["ID"].as_str().expect("an id"), &dump["Version"]["Index"]);
    let path = format!("/services/{id}/update?version={version}{more}");
    let answer = api.call("POST", &path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn status(api: &Api) -> Value {
    api.get("/services?status=true").await[0]["ServiceStatus"].clone()
}

/// Waits until as many tasks of the job have completed in its present run.
async fn completed(api: &Api, number: usize) {
    let done = |view: &Snapshot| {
        let job = view.services.named("dump").expect("it exists");
        let tasks = view.tasks_of(job.id).filter(|task| task.job_iteration == job.job_iteration());
        tasks.filter(|task| task.status.state == TaskState::Complete).count() == number
    };
    api.node.until("the job is done", done).await;
}

#[tokio::test]
async fn absent_numbers_are_one_and_as_many_as_at_the_same_time() {
    for (asked, kept) in [
        (json!({}), (1, 1)),
        (json!({"MaxConcurrent": 3}), (3, 3)),
        (json!({"TotalCompletions": 3}), (1, 3)),
        (json!({"MaxConcurrent": 0, "TotalCompletions": 3}), (0, 3)),
    ] {
        let api = Api::still().await;
        let mode = json!({"ReplicatedJob": asked});
        api.create("services", service("dump", &format!(r#","Mode":{mode}"#))).await;
        let kept = json!({"MaxConcurrent": kept.0, "TotalCompletions": kept.1});
        let mode = &api.get("/services/dump").await["Spec"]["Mode"];
        assert_eq!(mode["ReplicatedJob"], kept, "of {asked}");
    }
}

#[tokio::test]
async fn a_run_is_shown_and_counted() {
    let api = Api::alive(2).await;
    api.create("services", job(3)).await;
    completed(&api, 3).await;
    let dump = api.get("/services/dump").await;
    assert_eq!(dump["JobStatus"]["JobIteration"], json!({}), "Docker leaves a zero out");
    assert!(dump["JobStatus"]["LastExecution"].is_string());
    let tasks = api.get("/tasks").await;
    for task in tasks.as_array().expect("a list") {
        assert_eq!(
            (&task["JobIteration"], &task["DesiredState"]),
            (&json!({}), &json!("complete"))
        );
    }
    let counts = json!({"RunningTasks": 0, "DesiredTasks": 2, "CompletedTasks": 3});
    assert_eq!(status(&api).await, counts, "desired stays as many as at the same time");
}

#[tokio::test]
async fn a_job_that_is_at_work_is_counted_by_what_its_tasks_do() {
    let api = Api::alive(3).await;
    let body = service("dump", r#","Mode":{"GlobalJob":{}}"#);
    api.create("services", body).await;
    completed(&api, 3).await;
    let counts = json!({"RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 3});
    assert_eq!(status(&api).await, counts);

    // The same job in a swarm without agents, with one task at work.
    let api = Api::still().await;
    let id = api.create("services", service("dump", r#","Mode":{"GlobalJob":{}}"#)).await;
    let mut task = swarm::core::model::Task {
        id: "1".repeat(25).parse().expect("an id"),
        service_id: id.parse().expect("an id"),
        desired_state: TaskState::Complete,
        job_iteration: Some(Default::default()),
        status: TaskStatus::new(TaskState::Running, Timestamp::from_secs(1), "started"),
        ..Default::default()
    };
    api.node.commit(vec![Change::create(task.clone())]).await;
    task.id = "2".repeat(25).parse().expect("an id");
    task.job_iteration = Some(swarm::core::model::Version(7));
    api.node.commit(vec![Change::create(task)]).await;
    let counts = json!({"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 0});
    assert_eq!(status(&api).await, counts, "the present run alone counts");
}

#[tokio::test]
async fn every_change_runs_it_again() {
    let api = Api::alive(2).await;
    api.create("services", job(3)).await;
    completed(&api, 3).await;
    let first = api.get("/services/dump").await["JobStatus"]["LastExecution"].clone();
    update(&api, "", &job(3)).await;
    completed(&api, 3).await;
    update(&api, "", &job(5)).await;
    completed(&api, 5).await;
    assert_eq!(status(&api).await["CompletedTasks"], 5);
    update(&api, "&rollback=previous", &job(5)).await;
    completed(&api, 3).await;
    let dump = api.get("/services/dump").await;
    assert_eq!(dump["JobStatus"]["JobIteration"], json!({"Index": 3}));
    assert_ne!(dump["JobStatus"]["LastExecution"], first);
    assert_eq!(dump["UpdateStatus"], Value::Null, "a job has no roll-out");
    let present = api.get("/tasks?filters=%7B%22_up-to-date%22:%5B%22true%22%5D%7D").await;
    let present = present.as_array().expect("a list");
    assert_eq!(present.len(), 3);
    assert!(present.iter().all(|task| task["JobIteration"]["Index"] == 3));
}

#[tokio::test]
async fn a_job_has_no_update_configuration_but_shows_the_defaults() {
    let api = Api::still().await;
    api.create("services", job(3)).await;
    let plain = api.get("/services/dump").await;
    let with = api.get("/services/dump?insertDefaults=true").await;
    assert_eq!(plain["Spec"]["UpdateConfig"], Value::Null);
    assert_eq!(with["Spec"]["UpdateConfig"]["Order"], "stop-first");
    let view = api.node.view();
    assert!(matches!(
        view.services.named("dump").expect("it exists").spec.mode,
        ServiceMode::ReplicatedJob(_)
    ));
}
