//! `token-refresh` without a script: one refresh, what is cached, and the daemon's schedule.

use std::io::Write as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{EXPIRY, SHORT, TOKEN, agent, get, long_token, now, password, sandbox, text};
use crate::support::platform::{Platform, grant, reply};
use crate::support::sandbox::{Outcome, Run, Sandbox, Started};
use crate::support::{Case, Need, eventually, test_case};

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    vec![
        test_case!(once_refreshes_whatever_is_cached, root),
        test_case!(once_that_fails_changes_nothing, root),
        test_case!(status_says_for_how_long_and_never_what, root),
        test_case!(gh_gets_the_token_on_its_input_and_nowhere_else, root),
        test_case!(gh_that_hangs_is_left_behind, root),
        test_case!(the_daemon_refreshes_when_it_is_time_and_after_failures, root),
        test_case!(a_short_token_is_replaced_before_its_end, root),
        test_case!(odd_times_do_not_spin, root),
        test_case!(a_helper_script_is_run_where_one_is_named, &[Need::Root, Need::Program("bash")]),
        test_case!(the_boot_leaves_a_daemon_that_refreshes, root),
    ]
}

fn once(sandbox: &Sandbox, platform: &Platform) -> Run {
    agent(sandbox, platform).args(["token-refresh", "--once"])
}

fn once_refreshes_whatever_is_cached() {
    let sandbox = sandbox();
    sandbox.sh("echo old > /home/agent/.gh_token; chmod 644 /home/agent/.gh_token; chown agent /home/agent/.gh_token");
    let platform = Platform::new(|number, _, stream| {
        let token = if number == 0 { SHORT.to_owned() } else { long_token() };
        let _ = stream.write_all(&grant(&token, 1800));
    });
    for token in [SHORT.to_owned(), long_token()] {
        let outcome = once(&sandbox, &platform).env("GITHUB_TOKEN", "ghp_own").run();
        let said = "MOLECULE-GITHUB: refreshed: a token that is good for ";
        assert!(outcome.status == 0 && outcome.stdout().starts_with(said), "{outcome:?}");
        assert!(!outcome.stdout().contains("ghs_"), "{outcome:?}");
        assert_eq!(
            (text(&sandbox, TOKEN), text(&sandbox, "/home/agent/.gh_token")),
            (token.clone(), token)
        );
        assert_eq!(sandbox.sh("stat -c '%a %U' /home/agent/.gh_token"), "600 agent\n");
    }
    assert_eq!(password(&get(&sandbox, &platform).run()).0, long_token());
    assert_eq!(platform.asked().len(), 2);
}

fn once_that_fails_changes_nothing() {
    let sandbox = sandbox();
    let platform = Platform::new(|number, _, stream| {
        let answer = if number == 0 { grant(SHORT, 3600) } else { reply(502, &[], "") };
        let _ = stream.write_all(&answer);
    });
    assert_eq!(once(&sandbox, &platform).run().status, 0);
    let tree = "cd /home/agent; find . -type f ! -name lock -exec stat -c '%i %n %Y %a' {} +";
    let before = sandbox.sh(tree);
    let outcome = once(&sandbox, &platform).env("GITHUB_TOKEN", "ghp_own").run();
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.stdout().starts_with("MOLECULE-GITHUB: WARN not refreshed: "), "{outcome:?}");
    assert_eq!(sandbox.sh(tree), before);
}

fn status_says_for_how_long_and_never_what() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    let status = || agent(&sandbox, &platform).args(["token-refresh", "--status"]).run();
    let none = "MOLECULE-GITHUB: no token is cached that is still to be used\n";
    assert_eq!((status().status, status().stdout()), (1, none.into()));
    once(&sandbox, &platform).run();
    let said = status();
    let seconds = said.stdout();
    let seconds = seconds.strip_prefix("MOLECULE-GITHUB: a token is cached, to be used for ");
    let seconds: u32 = seconds.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(said.status == 0 && (2980..=3000).contains(&seconds), "{said:?}");
    std::fs::write(sandbox.path(EXPIRY), (now() - 1).to_string()).unwrap();
    assert_eq!((status().status, status().stdout()), (1, none.into()));
    let down = Platform::always(reply(404, &[], ""));
    once(&sandbox, &down).run();
    let said = status().stdout();
    assert!(
        said.starts_with("MOLECULE-GITHUB: WARN the last request failed: ") && said.contains("404"),
        "{said}"
    );
    assert_eq!(platform.asked().len(), 1);
}

fn gh_gets_the_token_on_its_input_and_nowhere_else() {
    let sandbox = sandbox();
    sandbox.install(
        "/usr/local/bin/gh",
        "#!/bin/sh\necho \"$@\" > /tmp/gh; env >> /tmp/gh; cat > /tmp/gh.in; exit ${GH_STATUS:-0}\n",
    );
    let platform = Platform::always(grant(&long_token(), 3600));
    let run = once(&sandbox, &platform).env("GITHUB_TOKEN", "ghp_own").env("GH_TOKEN", "ghp_own");
    let outcome = run.env("GH_CONFIG_DIR", "/tmp/x").run();
    assert!(outcome.stdout().ends_with("MOLECULE-GITHUB: gh has it too\n"), "{outcome:?}");
    assert_eq!(text(&sandbox, "/tmp/gh.in"), long_token());
    let gh = text(&sandbox, "/tmp/gh");
    assert!(gh.starts_with("auth login --hostname github.com --with-token\n"), "{gh}");
    assert!(
        !gh.contains("ghs_") && !gh.contains("ghp_") && gh.contains("GH_CONFIG_DIR=/tmp/x"),
        "{gh}"
    );
    let outcome = once(&sandbox, &platform).env("GH_STATUS", "4").run();
    assert!(
        outcome.status == 0 && outcome.stdout().contains("WARN log in with /usr/local/bin/gh"),
        "{outcome:?}"
    );
}

fn gh_that_hangs_is_left_behind() {
    let sandbox = sandbox();
    sandbox.install("/usr/local/bin/gh", "#!/bin/sh\ntrap '' TERM\nsleep 1000 & sleep 1001\n");
    let platform = Platform::always(grant(SHORT, 3600));
    let begin = Instant::now();
    let outcome = once(&sandbox, &platform).run();
    assert!(outcome.status == 0 && outcome.stdout().contains("its status is 137"), "{outcome:?}");
    assert!((25..60).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    eventually("the end of all", || sandbox.processes().is_empty());
}

fn times(run: Run, [initial, interval, jitter]: [&str; 3]) -> Run {
    run.env("TOKEN_REFRESH_INITIAL_DELAY_SEC", initial)
        .env("TOKEN_REFRESH_INTERVAL_SEC", interval)
        .env("TOKEN_REFRESH_JITTER_SEC", jitter)
}

/// The daemon of the agent, and where it says what it does.
fn daemon(sandbox: &Sandbox, platform: &Platform, settings: [&str; 3]) -> Started {
    sandbox.sh("chmod 1777 /tmp");
    let command = ["-c", "exec molecule-tools token-refresh > /tmp/said 2>&1"];
    let run = sandbox.command("/bin/sh").identity(1000, 1000, &[]).env("HOME", "/home/agent");
    let run = run.env("WORKSPACE_ID", "w-1").env("PLATFORM_URL", platform.url()).args(command);
    times(run, settings).start()
}

fn said(sandbox: &Sandbox) -> String {
    text(sandbox, "/tmp/said")
}

/// The pauses that it has announced, in seconds.
fn plans(sandbox: &Sandbox) -> Vec<u64> {
    let said = said(sandbox);
    let lines = said.lines().filter_map(|line| line.split_once(" the next refresh is in "));
    lines.map(|(_, pause)| pause.strip_suffix(" s").unwrap().parse().unwrap()).collect()
}

fn stop(started: Started) -> Outcome {
    kill(Pid::from_raw(started.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let outcome = started.wait();
    assert_eq!(outcome.status, 143, "{outcome:?}");
    outcome
}

fn the_daemon_refreshes_when_it_is_time_and_after_failures() {
    let sandbox = sandbox();
    let platform = Platform::new(|number, _, stream| {
        let answer = match number {
            1 => reply(429, &["Retry-After: 1"], ""),
            _ => grant(&format!("ghs_{number}"), 3600),
        };
        let _ = stream.write_all(&answer);
    });
    let started = daemon(&sandbox, &platform, ["1", "2", "0"]);
    eventually("the plan after the failure", || plans(&sandbox).len() == 3);
    assert_eq!(text(&sandbox, TOKEN), "ghs_0", "what fails changes nothing");
    stop(started);
    let (plans, said) = (plans(&sandbox), said(&sandbox));
    assert!(said.contains("WARN not refreshed: ") && !said.contains("ghs_"), "{said}");
    // The wish of the platform, and a part of two minutes more.
    assert!(plans[..2] == [1, 2] && (1..=121).contains(&plans[2]), "{said}");
}

fn a_short_token_is_replaced_before_its_end() {
    let sandbox = sandbox();
    // Five minutes and two seconds: nearly due.
    let platform = Platform::always(grant(SHORT, 302));
    let started = daemon(&sandbox, &platform, ["0", "2700", "0"]);
    eventually("the second plan", || plans(&sandbox).len() == 2);
    stop(started);
    assert!((1..=60).contains(&plans(&sandbox)[1]), "{}", said(&sandbox));
}

fn odd_times_do_not_spin() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    let started = daemon(&sandbox, &platform, ["0", "-1", "99999999999999999999999"]);
    eventually("its plan", || plans(&sandbox).len() == 1);
    std::thread::sleep(Duration::from_secs(2));
    assert!(platform.asked().len() <= 1);
    stop(started);
    for name in ["TOKEN_REFRESH_INTERVAL_SEC", "TOKEN_REFRESH_JITTER_SEC"] {
        let complaint = format!("use {name}: it is no number of seconds; going on with ");
        assert!(said(&sandbox).contains(&complaint), "{}", said(&sandbox));
    }
}

fn a_helper_script_is_run_where_one_is_named() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    // No x bit.
    std::fs::write(
        sandbox.path("/app/helper"),
        "echo \"$@\" ghs_CANARY; echo \"$@\" >> /tmp/ran; exit $(cat /tmp/rc)\n",
    )
    .unwrap();
    sandbox.sh("chmod 644 /app/helper; chmod 1777 /tmp; echo 0 > /tmp/rc");
    let outcome = once(&sandbox, &platform).env("TOKEN_HELPER_SCRIPT", "/app/helper").run();
    let said = (outcome.status, outcome.stdout());
    assert_eq!(
        said,
        (0, "MOLECULE-GITHUB: refreshed by TOKEN_HELPER_SCRIPT\n".into()),
        "{outcome:?}"
    );
    assert_eq!(text(&sandbox, "/tmp/ran"), "_refresh_gh\n");
    std::fs::write(sandbox.path("/tmp/rc"), "3").unwrap();
    let run =
        agent(&sandbox, &platform).arg("token-refresh").env("TOKEN_HELPER_SCRIPT", "/app/helper");
    let started = times(run, ["0", "1", "0"]).start();
    eventually("two runs", || text(&sandbox, "/tmp/ran").lines().count() >= 2);
    let outcome = stop(started);
    assert!(!format!("{outcome:?}").contains("CANARY"), "{outcome:?}");
    assert!(platform.asked().is_empty());
}

fn the_boot_leaves_a_daemon_that_refreshes() {
    let sandbox = sandbox();
    let runtime = "#!/bin/sh\nwhile [ ! -e /tmp/over ]; do sleep 0.1; done\nexit 42\n";
    sandbox.install("/usr/local/bin/molecule-runtime", runtime);
    let platform = Platform::always(grant(SHORT, 3600));
    let run = sandbox.program().arg("entrypoint").env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true");
    let run = times(
        run.env("PLATFORM_URL", platform.url()).env("WORKSPACE_ID", "w-1"),
        ["0", "2700", "0"],
    );
    let started = run.start();
    eventually("the token", || text(&sandbox, "/home/agent/.gh_token") == SHORT);
    let log = || text(&sandbox, "/home/agent/.gh-token-refresh.log");
    eventually("its plan", || log().contains(" the next refresh is in 2700 s\n"));
    assert!(log().contains("MOLECULE-GITHUB: refreshed: "), "{}", log());
    std::fs::write(sandbox.path("/tmp/over"), "").unwrap();
    assert_eq!(started.wait().status, 42);
}
