//! The files that hold the token, and many who want it at once.

use std::io::Write as _;
use std::time::Duration;

use super::{
    CACHE, EXPIRY, SHORT, TOKEN, agent, get, input, long_token, now, password, refusal, sandbox,
    text,
};
use crate::support::platform::{Platform, grant, reply};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    vec![
        test_case!(a_fresh_token_is_used_again, root),
        test_case!(a_token_that_is_not_surely_good_is_fetched_anew, root),
        test_case!(fifty_at_once_make_one_request, root),
        test_case!(fifty_at_once_fail_with_one_request, root),
        test_case!(whoever_waits_for_a_dead_process_does_not_wait_long, root),
        test_case!(a_kill_at_any_time_leaves_one_token_or_the_other, root),
        test_case!(erase_drops_the_refused_token_only, root),
        test_case!(the_users_own_token_is_the_last_resort_and_is_not_kept, root),
        test_case!(root_in_the_agents_home_writes_for_the_agent, root),
    ]
}

fn a_fresh_token_is_used_again() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(&long_token(), 3600));
    let first = get(&sandbox, &platform).umask(0).run();
    let second = get(&sandbox, &platform).env("PLATFORM_URL", "http://127.0.0.1:1").run();
    assert_eq!(password(&first), password(&second));
    assert_eq!(platform.asked().len(), 1);
    let list = sandbox.sh(&format!("stat -c '%a %U %n' {CACHE} {TOKEN} {EXPIRY}"));
    assert_eq!(list, format!("700 agent {CACHE}\n600 agent {TOKEN}\n600 agent {EXPIRY}\n"));
    assert_eq!(text(&sandbox, TOKEN), long_token());
    // As the shell's test compares it.
    assert!(text(&sandbox, EXPIRY).bytes().all(|byte| byte.is_ascii_digit()));
}

fn a_token_that_is_not_surely_good_is_fetched_anew() {
    let platform = Platform::always(grant(SHORT, 3600));
    let soon = now() + 600;
    for change in [
        format!("echo {} > {EXPIRY}", now() - 1),
        format!("echo {} > {EXPIRY}", now() + 3600 * 24),
        format!("echo soon > {EXPIRY}"),
        format!("echo -1 > {EXPIRY}"),
        format!(": > {EXPIRY}"),
        format!("rm {EXPIRY}"),
        // The clock has been set back since.
        format!("echo {soon} > {EXPIRY}; touch -d '1 hour' {EXPIRY}"),
        format!("echo {soon} > {EXPIRY}; : > {TOKEN}"),
        format!(
            "echo {soon} > {EXPIRY}; printf 'a\\nhost=evil' > {TOKEN}.new; printf 'a\\0b' > {TOKEN}"
        ),
        format!("echo {soon} > {EXPIRY}; rm {TOKEN}"),
    ] {
        let sandbox = sandbox();
        password(&get(&sandbox, &platform).run());
        let before = platform.asked().len();
        sandbox.sh(&format!("printf ghs_OLD > {TOKEN}; {change}; chown -R agent: {CACHE}"));
        assert_eq!(password(&get(&sandbox, &platform).run()).0, SHORT, "{change}");
        assert_eq!(platform.asked().len(), before + 1, "{change}");
    }
    // What the shell script has left is used.
    let sandbox = sandbox();
    sandbox.sh(&format!(
        "mkdir {CACHE}; printf ghs_OLD > {TOKEN}; echo {soon} > {EXPIRY}; chown -R agent: {CACHE}"
    ));
    assert_eq!(password(&get(&sandbox, &platform).run()), ("ghs_OLD".into(), soon));
}

/// A platform that takes a while.
fn slow(answer: Vec<u8>) -> Platform {
    Platform::new(move |_, _, stream| {
        std::thread::sleep(Duration::from_millis(700));
        let _ = stream.write_all(&answer);
    })
}

fn fifty_at_once_make_one_request() {
    let sandbox = sandbox();
    let platform = slow(grant(&long_token(), 3600));
    let started: Vec<_> = (0..50).map(|_| get(&sandbox, &platform).start()).collect();
    for one in started {
        assert_eq!(password(&one.wait()).0, long_token());
    }
    assert_eq!(platform.asked().len(), 1);
}

fn fifty_at_once_fail_with_one_request() {
    let sandbox = sandbox();
    let platform = Platform::new(|_, _, stream| {
        // Until all of them wait.
        std::thread::sleep(Duration::from_secs(4));
        let _ = stream.write_all(&reply(503, &[], ""));
    });
    let started: Vec<_> = (0..50).map(|_| get(&sandbox, &platform).start()).collect();
    for one in started {
        assert!(refusal(&one.wait()).contains("status 503"));
    }
    assert_eq!(platform.asked().len(), 1);
    // The next one asks for itself.
    assert!(refusal(&get(&sandbox, &platform).run()).contains("status 503"));
    assert_eq!(platform.asked().len(), 2);
}

fn whoever_waits_for_a_dead_process_does_not_wait_long() {
    let sandbox = sandbox();
    let platform = Platform::new(|number, _, stream| {
        if number == 0 {
            std::thread::sleep(Duration::from_secs(60));
        }
        let _ = stream.write_all(&grant(SHORT, 3600));
    });
    let mut first = get(&sandbox, &platform).start();
    while platform.asked().is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = get(&sandbox, &platform).start();
    std::thread::sleep(Duration::from_millis(100));
    first.child.kill().unwrap();
    assert_eq!(password(&second.wait()).0, SHORT);
    assert_eq!(first.wait().status, 137);
}

fn a_kill_at_any_time_leaves_one_token_or_the_other() {
    let sandbox = sandbox();
    let platform = Platform::new(|number, _, stream| {
        let token = format!("ghs_{number:04}_{}", "x".repeat(500));
        let _ = stream.write_all(&grant(&token, 3600));
    });
    for round in 0..60_u64 {
        let mut once = agent(&sandbox, &platform).args(["token-refresh", "--once"]).start();
        std::thread::sleep(Duration::from_micros(300 * round));
        let _ = once.child.kill();
        once.wait();
        let token = text(&sandbox, TOKEN);
        let complete = token.len() == 509 && token.starts_with("ghs_") && token.ends_with('x');
        assert!(token.is_empty() || complete, "round {round}: {token}");
        let expiry = text(&sandbox, EXPIRY);
        assert!(expiry.is_empty() || expiry.parse::<i64>().is_ok(), "round {round}: {expiry}");
    }
    assert_eq!(agent(&sandbox, &platform).args(["token-refresh", "--once"]).run().status, 0);
    let newest = format!("ghs_{:04}_", platform.asked().len() - 1);
    assert!(text(&sandbox, TOKEN).starts_with(&newest), "{newest}");
}

fn erase_drops_the_refused_token_only() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    password(&get(&sandbox, &platform).run());
    let erase = |text: &str| {
        let run = agent(&sandbox, &platform).args(["git-credential-molecule", "erase"]);
        let outcome = run.stdin(input(text)).run();
        assert_eq!((outcome.status, outcome.stdout()), (0, String::new()), "{outcome:?}");
    };
    for other in [
        "protocol=https\nhost=github.com\npassword=ghs_other\n",
        "protocol=https\nhost=github.com\n",
        &format!("protocol=https\nhost=example.com\npassword={SHORT}\n"),
        &format!("protocol=https\nhost=github.com\nusername=me\npassword={SHORT}\n"),
        "",
    ] {
        erase(other);
        assert_eq!(text(&sandbox, TOKEN), SHORT, "{other}");
    }
    erase(&format!("protocol=https\nhost=github.com\nusername=x-access-token\npassword={SHORT}\n"));
    assert!(!sandbox.path(TOKEN).exists() && !sandbox.path(EXPIRY).exists());
    assert_eq!(platform.asked().len(), 1);
}

fn the_users_own_token_is_the_last_resort_and_is_not_kept() {
    let sandbox = sandbox();
    let down = Platform::always(reply(500, &[], ""));
    let own = |run: crate::support::sandbox::Run| {
        run.env("GITHUB_TOKEN", "").env("GH_TOKEN", "ghp_second")
    };
    assert_eq!(password(&own(get(&sandbox, &down)).run()).0, "ghp_second");
    let both = own(get(&sandbox, &down)).env("GITHUB_TOKEN", "ghp_first");
    assert_eq!(password(&both.run()).0, "ghp_first");
    assert!(!sandbox.path(TOKEN).exists());
    let platform = Platform::always(grant(SHORT, 3600));
    assert_eq!(password(&own(get(&sandbox, &platform)).run()).0, SHORT);
    assert_eq!(password(&own(get(&sandbox, &down)).run()).0, SHORT);
}

fn root_in_the_agents_home_writes_for_the_agent() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    let as_root = get(&sandbox, &platform).identity(0, 0, &[]);
    password(&as_root.run());
    let owners = sandbox.sh(&format!("stat -c '%U:%G' {CACHE} {CACHE}/* | sort -u"));
    assert_eq!(owners, "agent:agent\n");
    password(&get(&sandbox, &platform).run());
    assert_eq!(platform.asked().len(), 1);
}
