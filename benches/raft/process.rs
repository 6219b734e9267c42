//! A child process, what it costs by `/proc`, and a conversation with it in lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A process that is killed when it is no longer looked at.
pub(crate) struct Process {
    child: Child,
    talk: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

/// What processes have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu_seconds: f64,
    /// Bytes that went, or have to go, to the disk.
    pub(crate) written: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: it may have ended on its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a process that says nothing.
    pub(crate) fn silent(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("the program can be started"), talk: None }
    }

    /// Starts a process that answers each line with a line.
    pub(crate) fn talking(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let talk = input.zip(output.map(BufReader::new));
        Self { child, talk }
    }

    /// Says a line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let (input, output) = self.talk.as_mut().expect("it talks");
        writeln!(input, "{line}").expect("it listens");
        let mut answer = String::new();
        let read = output.read_line(&mut answer).expect("it answers");
        assert!(read > 0, "the process ended over: {line}");
        answer.trim_end().to_owned()
    }

    pub(crate) fn used(&self) -> Used {
        let stat = self.proc("stat");
        // The name may hold blanks; what follows its bracket does not.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
        let ticks: u32 = [12, 13].iter().map(|at| fields[*at].parse::<u32>().expect("ticks")).sum();
        let io = self.proc("io");
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        // Linux reports to programs in hundredths of a second on every architecture of ours.
        let cpu_seconds = f64::from(ticks) / 100.0;
        Used { cpu_seconds, written: written.expect("write_bytes").parse().expect("a number") }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("it runs")
    }
}

/// Resident memory now and at its peak, in bytes, out of a `/proc/PID/status`.
pub(crate) fn memory_of(status: &str) -> [u64; 2] {
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    })
}

impl Used {
    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written: self.written - before.written,
        }
    }
}

impl std::iter::Sum for Used {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, used| Self {
            cpu_seconds: sum.cpu_seconds + used.cpu_seconds,
            written: sum.written + used.written,
        })
    }
}
