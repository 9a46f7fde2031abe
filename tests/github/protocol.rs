//! git's protocol, spoken with git itself.

use super::{EXPIRY, SHORT, TOKEN, agent, get, input, long_token, now, sandbox, text};
use crate::support::platform::{Platform, grant};
use crate::support::sandbox::{Outcome, PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const GIT: &[Need] = &[Need::Root, Need::Program("git")];
    let root = &[Need::Root];
    vec![
        test_case!(git_fills_with_the_token_and_drops_it_when_it_is_refused, GIT),
        test_case!(git_gets_the_capability_it_announces, GIT),
        test_case!(other_servers_hear_nothing, GIT),
        test_case!(what_git_may_ask_one_day_is_passed_over, root),
        test_case!(no_input_is_needed, root),
        test_case!(git_asks_it_as_askpass_for_its_servers_only, GIT),
        test_case!(git_credential_external_tests_of_a_helper_that_only_reads, GIT),
    ]
}

/// Runs `git credential OPERATION` as the agent, with the symlink of the program as `helper = molecule`.
fn git(sandbox: &Sandbox, platform: &Platform, operation: &str, text: &str) -> Outcome {
    configured(sandbox, platform).args(["credential", operation]).stdin(input(text)).run()
}

fn configured(sandbox: &Sandbox, platform: &Platform) -> Run {
    sandbox.sh("ln -sf molecule-tools /usr/local/bin/git-credential-molecule");
    let run = sandbox.command("/usr/bin/git").identity(1000, 1000, &[]).env("HOME", "/home/agent");
    run.env("WORKSPACE_ID", "w-1")
        .env("PLATFORM_URL", platform.url())
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", "credential.helper=molecule"])
}

fn git_fills_with_the_token_and_drops_it_when_it_is_refused() {
    let sandbox = sandbox();
    let platform = Platform::new(|number, _, stream| {
        use std::io::Write as _;
        let token = if number == 0 { SHORT.to_owned() } else { long_token() };
        let _ = stream.write_all(&grant(&token, 3600));
    });
    let filled = git(&sandbox, &platform, "fill", "protocol=https\nhost=github.com\n\n");
    let lines = filled.stdout();
    for line in ["username=x-access-token".into(), format!("password={SHORT}")] {
        assert!(lines.lines().any(|other| other == line), "{filled:?}");
    }
    let expiry = lines.lines().find_map(|line| line.strip_prefix("password_expiry_utc="));
    // git knows it since 2.40.
    assert!(expiry.is_none_or(|expiry| expiry.parse::<i64>().unwrap() > now()), "{filled:?}");
    assert_eq!(git(&sandbox, &platform, "approve", &lines).status, 0);
    assert_eq!(text(&sandbox, TOKEN), SHORT);
    assert_eq!(git(&sandbox, &platform, "reject", &lines).status, 0);
    assert!(!sandbox.path(TOKEN).exists());
    let again = git(&sandbox, &platform, "fill", "protocol=https\nhost=github.com\n\n");
    assert!(again.stdout().contains(&format!("password={}\n", long_token())), "{again:?}");
    // An old refusal does not drop the new one.
    git(&sandbox, &platform, "reject", &lines);
    assert_eq!(text(&sandbox, TOKEN), long_token());
}

fn git_gets_the_capability_it_announces() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    let ask = "capability[]=authtype\nprotocol=https\nhost=github.com\n\n";
    let run = agent(&sandbox, &platform).args(["git-credential-molecule", "get"]);
    let answer = run.stdin(input(ask)).run().stdout();
    assert!(
        answer.starts_with("capability[]=authtype\n") && answer.ends_with("\nephemeral=1\n"),
        "{answer}"
    );
    let filled = git(&sandbox, &platform, "fill", ask).stdout();
    assert!(filled.contains(&format!("password={SHORT}\n")), "{filled}");
    let asked = agent(&sandbox, &platform).args(["git-credential-molecule", "capability"]).run();
    assert_eq!((asked.status, asked.stdout()), (0, "version 0\ncapability authtype\n".into()));
}

fn other_servers_hear_nothing() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    for other in [
        "protocol=https\nhost=example.com\n\n",
        "protocol=http\nhost=github.com\n\n",
        "protocol=https\nhost=github.com.evil.example\n\n",
        "protocol=https\nhost=github.com\nusername=me\n\n",
        "protocol=ssh\nhost=github.com\n\n",
    ] {
        let run = agent(&sandbox, &platform).args(["git-credential-molecule", "get"]);
        let outcome = run.stdin(input(other)).run();
        let said = (outcome.status, outcome.stdout(), outcome.stderr());
        assert_eq!(said, (0, String::new(), String::new()), "{other}");
        let filled = git(&sandbox, &platform, "fill", other);
        assert!(filled.status != 0 && !filled.stdout().contains("ghs_"), "{filled:?}");
    }
    assert!(platform.asked().is_empty());
}

fn what_git_may_ask_one_day_is_passed_over() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    for operation in ["store", "frobnicate"] {
        let run = agent(&sandbox, &platform).args(["git-credential-molecule", operation]);
        let outcome = run.stdin(input("protocol=https\nhost=github.com\npassword=x\n\n")).run();
        let said = (outcome.status, outcome.stdout(), outcome.stderr());
        assert_eq!(said, (0, String::new(), String::new()), "{operation}");
    }
    let outcome = agent(&sandbox, &platform).arg("git-credential-molecule").run();
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /home/agent"), "");
}

fn no_input_is_needed() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    let run = agent(&sandbox, &platform).args(["git-credential-molecule", "get"]);
    assert!(run.run().stdout().contains(&format!("password={SHORT}\n")));
    let large = format!("host=github.com\nx={}\n", "x".repeat(70_000));
    let run = agent(&sandbox, &platform).args(["git-credential-molecule", "get"]);
    let outcome = run.stdin(input(&large)).run();
    assert_eq!((outcome.status, outcome.stdout()), (1, String::new()));
    assert!(outcome.stderr().contains("it is longer than 64 KiB"), "{outcome:?}");
}

fn git_asks_it_as_askpass_for_its_servers_only() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    for (host, answered) in
        [("github.com", true), ("gist.github.com", true), ("evil.example", false)]
    {
        let run = configured(&sandbox, &platform).env("GIT_ASKPASS", "git-credential-molecule");
        let run = run.args(["-c", "credential.helper=", "credential", "fill"]);
        let outcome = run.stdin(input(&format!("protocol=https\nhost={host}\n\n"))).run();
        let filled = outcome.stdout();
        let both = filled.contains("username=x-access-token\n")
            && filled.contains(&format!("password={SHORT}\n"));
        assert_eq!(both, answered, "{outcome:?}");
        assert!(answered || !filled.contains("ghs_"), "{outcome:?}");
    }
    let ask =
        |prompt: &str| agent(&sandbox, &platform).args(["git-credential-molecule", prompt]).run();
    let foreign = ask("Password for 'https://x-access-token@evil.example': ");
    assert_eq!((foreign.status, foreign.stdout()), (1, String::new()));
}

/// What the tests of git's own suite for any helper ask of one that stores nothing (t0303).
fn git_credential_external_tests_of_a_helper_that_only_reads() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    // Not theirs: it has nothing to say, so git asks the user, whose answer is not kept.
    let askpass =
        "#!/bin/sh\ncase $1 in User*) echo askpass-username;; *) echo askpass-password;; esac\n";
    sandbox.install("/usr/local/bin/askpass", askpass);
    for _ in 0..2 {
        let run = configured(&sandbox, &platform).env("GIT_ASKPASS", "askpass");
        let filled = run
            .args(["credential", "fill"])
            .stdin(input("protocol=https\nhost=example.com\n\n"))
            .run();
        let expected = "protocol=https\nhost=example.com\nusername=askpass-username\npassword=askpass-password\n";
        assert_eq!((filled.stdout(), filled.status), (expected.into(), 0), "{filled:?}");
        assert_eq!(git(&sandbox, &platform, "approve", expected).status, 0);
    }
    assert_eq!(
        git(&sandbox, &platform, "reject", "protocol=https\nhost=example.com\n\n").status,
        0
    );
    assert!(!sandbox.path(EXPIRY).exists() && platform.asked().is_empty());
    assert_eq!(get(&sandbox, &platform).arg0(PROGRAM_INSIDE).run().status, 0);
}
