//! Tables of a task's steps.

use swarm_core::model::{Endpoint, NetworkAttachment, PortConfig};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1000);

fn run(state: TaskState, desired: TaskState) -> Run {
    let task = Task { desired_state: desired, ..Default::default() };
    let mut run = Run::new(Arc::new(task), TaskStatus::new(state, NOW, "before"));
    run.confirmed = true;
    run
}

fn step(run: &Run) -> Step {
    run.step(NOW, &Timing::default())
}

#[test]
fn a_task_takes_one_step_at_a_time() {
    use TaskState::*;
    let table = [
        (Assigned, Running, Step::Become(Accepted, "accepted")),
        (Accepted, Running, Step::Become(Preparing, "preparing")),
        (Accepted, Ready, Step::Become(Preparing, "preparing")),
        (Preparing, Ready, Step::Do(Op::Prepare)),
        (Ready, Ready, Step::Idle),
        (Ready, Running, Step::Become(Starting, "starting")),
        (Ready, Complete, Step::Become(Starting, "starting")),
        (Starting, Running, Step::Do(Op::Start)),
        (Running, Running, Step::Do(Op::Wait)),
        (Running, Complete, Step::Do(Op::Wait)),
        (Complete, Complete, Step::Idle),
        (Failed, Running, Step::Idle),
        (Assigned, Shutdown, Step::Become(Shutdown, "shutdown")),
        (Accepted, Remove, Step::Become(Shutdown, "shutdown")),
        (Preparing, Shutdown, Step::Do(Op::Stop)),
        (Ready, Shutdown, Step::Do(Op::Stop)),
        (Starting, Shutdown, Step::Do(Op::Stop)),
        (Running, Shutdown, Step::Do(Op::Stop)),
        (Running, Remove, Step::Do(Op::Stop)),
        (Shutdown, Shutdown, Step::Idle),
        (Failed, Shutdown, Step::Idle),
        (Failed, Remove, Step::Do(Op::Remove)),
    ];
    for (state, desired, expected) in table {
        assert_eq!(step(&run(state, desired)), expected, "{state} with desired {desired}");
    }
}

#[test]
fn what_is_not_assigned_any_more_is_stopped_removed_and_forgotten() {
    let mut run = run(TaskState::Running, TaskState::Running);
    run.doing = Some((Op::Wait, 1));
    run.dropped = true;
    assert_eq!(step(&run), Step::Do(Op::Stop));
    run.doing = Some((Op::Stop, 2));
    assert_eq!(step(&run), Step::Idle, "nothing interrupts a stop");
    run.finish(Outcome::Stopped(Ok(None)), NOW, &Timing::default());
    assert_eq!(step(&run), Step::Do(Op::Remove));
    run.finish(Outcome::Removed(Ok(())), NOW, &Timing::default());
    assert_eq!(step(&run), Step::Forget);
}

#[test]
fn what_the_manager_gave_up_is_stopped() {
    let mut run = run(TaskState::Running, TaskState::Running);
    Arc::make_mut(&mut run.task).status.state = TaskState::Orphaned;
    assert_eq!(step(&run), Step::Do(Op::Stop));
}

#[test]
fn the_journal_alone_keeps_tasks_going_and_prepares_none() {
    use TaskState::*;
    let table = [
        (Accepted, Step::Idle),
        (Preparing, Step::Idle),
        (Ready, Step::Become(Starting, "starting")),
        (Running, Step::Do(Op::Wait)),
    ];
    for (state, expected) in table {
        let mut run = run(state, Running);
        run.confirmed = false;
        assert_eq!(step(&run), expected, "{state}");
    }
}

#[test]
fn a_reached_task_drains_before_it_stops() {
    let timing = Timing::default();
    let networked = |task: &mut Task| task.networks.push(NetworkAttachment::default());
    let published = |task: &mut Task| {
        let endpoint = Endpoint { ports: vec![PortConfig::default()], ..Default::default() };
        task.endpoint = Some(Arc::new(endpoint));
    };
    for reach in [networked as fn(&mut Task), published] {
        let mut run = run(TaskState::Running, TaskState::Shutdown);
        reach(Arc::make_mut(&mut run.task));
        assert_eq!(step(&run), Step::Drain);
        let end = NOW + timing.drain;
        run.drained_at = Some(end);
        assert_eq!(step(&run), Step::Until(end));
        assert_eq!(run.step(end, &timing), Step::Do(Op::Stop));
    }
    let mut waiting = run(TaskState::Ready, TaskState::Shutdown);
    networked(Arc::make_mut(&mut waiting.task));
    assert_eq!(step(&waiting), Step::Do(Op::Stop), "what does not run needs no drain");
}

#[test]
fn errors_reject_before_the_start_and_fail_from_it() {
    use TaskState::*;
    let timing = Timing::default();
    type Make = fn(ExecError) -> Outcome;
    let table: [(TaskState, Make, TaskState); 3] = [
        (Preparing, |error| Outcome::Prepared(Err(error)), Rejected),
        (Starting, |error| Outcome::Started(Err(error)), Failed),
        (Running, |error| Outcome::Exited(Err(error)), Failed),
    ];
    for (state, outcome, expected) in table {
        let mut ended = run(state, Running);
        ended.finish(outcome(ExecError::rejected("no such image")), NOW, &timing);
        assert_eq!(ended.status.state, expected, "{state}");
        assert_eq!(ended.status.err, "no such image");
        assert_eq!(ended.status.message, "before", "the message tells how far it came");

        let mut again = run(state, Running);
        for pause in [1, 2, 4, 8, 8] {
            again.finish(outcome(ExecError::temporary("engine is down")), NOW, &timing);
            assert_eq!(again.status.state, state);
            assert_eq!(again.status.err, "engine is down", "a stalled task says why");
            assert_eq!(step(&again), Step::Until(NOW + Duration::from_secs(pause)));
        }
    }
}

#[test]
fn what_cannot_be_stopped_never_counts_as_gone() {
    let mut run = run(TaskState::Running, TaskState::Shutdown);
    run.finish(Outcome::Stopped(Err(ExecError::failed("stuck"))), NOW, &Timing::default());
    assert_eq!(run.status.state, TaskState::Running);
    assert_eq!(run.status.err, "stuck");
    assert!(matches!(step(&run), Step::Until(_)));
}

#[test]
fn ends_are_told_in_swarms_words() {
    let table = [
        (0, None, TaskState::Complete, "finished", ""),
        (1, None, TaskState::Failed, "started", "task: non-zero exit (1)"),
        (
            143,
            Some("unhealthy container"),
            TaskState::Failed,
            "started",
            "task: non-zero exit (143): unhealthy container",
        ),
        (0, Some("unhealthy container"), TaskState::Failed, "started", "task: unhealthy container"),
    ];
    for (code, error, state, message, err) in table {
        let mut run = run(TaskState::Running, TaskState::Running);
        run.status.container = Some(Box::new(ContainerStatus {
            container_id: "c".into(),
            pid: 7,
            ..Default::default()
        }));
        let exit = Exit { code, error: error.map(str::to_owned) };
        run.finish(Outcome::Exited(Ok(exit)), NOW, &Timing::default());
        assert_eq!(
            (run.status.state, &*run.status.message, &*run.status.err),
            (state, message, err)
        );
        let container = run.status.container.unwrap();
        assert_eq!((container.exit_code, container.pid), (code, 0));
        assert_eq!(container.container_id, "c");
    }
}

#[test]
fn a_stopped_task_keeps_its_exit_code() {
    let mut run = run(TaskState::Running, TaskState::Shutdown);
    run.status.container = Some(Box::default());
    run.status.endpoints.push(TaskEndpoint::default());
    let exit = Exit { code: 143, error: None };
    run.finish(Outcome::Stopped(Ok(Some(exit))), NOW, &Timing::default());
    assert_eq!(run.status.state, TaskState::Shutdown);
    assert_eq!(run.status.container.unwrap().exit_code, 143);
    assert!(run.status.endpoints.is_empty(), "what does not run answers nowhere");
}
