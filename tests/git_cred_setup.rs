//! git-cred-setup: real git reads back what it set, the agent keeps its own settings, and nothing the
//! agent can plant is followed, disclosed or executed.

mod faults;
mod planted;

use crate::support::sandbox::{Outcome, PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, test_case};

const ROOTS: &str = "/root/.gitconfig";
const AGENTS: &str = "/home/agent/.gitconfig";
const HELPER: &str = "credential.https://github.com.helper";
const USE_PATH: &str = "credential.https://github.com.useHttpPath";
const SCRIPT: &str = "/app/scripts/molecule-git-token-helper.sh";

pub fn cases() -> Vec<Case> {
    let needs = &[Need::Root, Need::Program("git")];
    let mut cases = vec![
        test_case!(a_fresh_file_is_what_git_itself_makes, needs),
        test_case!(an_agent_without_a_file_gets_roots_settings, needs),
        test_case!(the_agents_own_settings_are_kept, needs),
        test_case!(odd_spellings_and_several_values_become_one, needs),
        test_case!(odd_helpers_read_back_through_git, needs),
        test_case!(a_second_run_changes_nothing, needs),
        test_case!(modes_are_kept_and_the_owner_is_the_agent, needs),
        test_case!(homes_come_from_home_and_the_user_database, needs),
        test_case!(another_root_is_set_up_by_its_own_users, needs),
        test_case!(the_agent_by_hand_sets_its_own, needs),
        test_case!(an_unknown_user_leaves_root_set_up, needs),
        test_case!(a_broken_file_is_left_alone, needs),
        test_case!(without_git_there_is_one_clear_line, &[Need::Root]),
        test_case!(the_boot_sets_it_up_only_when_asked_and_never_fails, needs),
    ];
    cases.extend(planted::cases());
    cases.extend(faults::cases());
    cases
}

fn setup(sandbox: &Sandbox) -> Run {
    sandbox.program().arg("git-cred-setup")
}

fn write(sandbox: &Sandbox, path: &str, text: &str) {
    std::fs::write(sandbox.path(path), text).unwrap();
    if path.starts_with("/home/agent") {
        sandbox.sh(&format!("chown agent:agent {path}"));
    }
}

fn text(sandbox: &Sandbox, path: &str) -> String {
    std::fs::read_to_string(sandbox.path(path)).unwrap()
}

/// All values of `key` in the global configuration of whoever has `home`.
fn values(sandbox: &Sandbox, home: &str, key: &str) -> Vec<String> {
    let outcome = sandbox
        .command("/usr/bin/git")
        .args(["config", "--global", "-z", "--get-all", key])
        .env("HOME", home)
        .run();
    let stdout = outcome.stdout();
    stdout.split_terminator('\0').map(str::to_owned).collect()
}

/// The value that is set if nobody names another.
fn helper(sandbox: &Sandbox) -> String {
    match sandbox.path(SCRIPT).exists() {
        true => format!("!{SCRIPT}"),
        false => format!("!{PROGRAM_INSIDE} git-credential-molecule"),
    }
}

#[track_caller]
fn is_set(sandbox: &Sandbox, home: &str) {
    assert_eq!(values(sandbox, home, HELPER), [helper(sandbox)], "{home}");
    assert_eq!(values(sandbox, home, USE_PATH), ["true"], "{home}");
}

#[track_caller]
fn succeeded(outcome: &Outcome) {
    assert_eq!((outcome.status, outcome.stderr()), (0, String::new()), "{outcome:?}");
    assert!(!outcome.stdout().contains("WARN"), "{outcome:?}");
}

/// The only warning of a run that failed.
#[track_caller]
fn warning(outcome: &Outcome) -> String {
    assert_eq!((outcome.status, outcome.stderr()), (1, String::new()), "{outcome:?}");
    let stdout = outcome.stdout();
    let warnings: Vec<&str> = stdout.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 1, "{outcome:?}");
    warnings[0].strip_prefix("MOLECULE-GIT: WARN ").unwrap().to_owned()
}

fn a_fresh_file_is_what_git_itself_makes() {
    let sandbox = Sandbox::new();
    let before = sandbox.sh("ls -A /run /tmp /var/tmp / /home/agent /root");
    for umask in [0o022, 0o077] {
        sandbox.sh(&format!("rm -f {ROOTS} {AGENTS}"));
        let outcome = setup(&sandbox).umask(umask).run();
        succeeded(&outcome);
        let git = format!(
            "git config --global {HELPER} '{}'; git config --global {USE_PATH} true",
            helper(&sandbox)
        );
        sandbox.command("/bin/sh").args(["-c", &git]).env("HOME", "/tmp").umask(umask).run();
        for (file, owner) in [(ROOTS, "root:root"), (AGENTS, "agent:agent")] {
            assert_eq!(text(&sandbox, file), text(&sandbox, "/tmp/.gitconfig"));
            let form = |file, owner| sandbox.sh(&format!("stat -c '%a {owner}' {file}"));
            assert_eq!(form(file, "%U:%G"), form("/tmp/.gitconfig", owner));
        }
        sandbox.sh(&format!("rm {ROOTS} {AGENTS} /tmp/.gitconfig"));
    }
    assert_eq!(sandbox.sh("ls -A /run /tmp /var/tmp / /home/agent /root"), before);
}

fn an_agent_without_a_file_gets_roots_settings() {
    let sandbox = Sandbox::new();
    write(&sandbox, ROOTS, "# root's\n[user]\n\tname = Molecule\n[http]\n\tproxy = \"a;b\"\n");
    sandbox.sh(&format!("chmod 640 {ROOTS}"));
    succeeded(&setup(&sandbox).run());
    assert_eq!(text(&sandbox, AGENTS), text(&sandbox, ROOTS));
    assert_eq!(values(&sandbox, "/home/agent", "http.proxy"), ["a;b"]);
    is_set(&sandbox, "/root");
    is_set(&sandbox, "/home/agent");
    assert_eq!(sandbox.sh(&format!("stat -c '%a %U:%G' {AGENTS}")), "640 agent:agent\n");
}

fn the_agents_own_settings_are_kept() {
    let sandbox = Sandbox::new();
    let own = "# mine\n[user]\n\tname = \"An \\\"agent\\\"\" ; note\n\temail = a#b@c\n[alias]\n\tst = \"!f() { \\\n\
               echo a\\\\b; }; f\"\n[credential \"https://gitlab.com\"]\n\thelper = store\n\
               [credential \"https://GitHub.com\"]\n\thelper = other\n";
    write(&sandbox, ROOTS, "[user]\n\tname = Root\n");
    write(&sandbox, AGENTS, own);
    let list = || {
        let list = "HOME=/home/agent git config --global --list | grep -v '^credential.https://github.com'";
        sandbox.sh(list)
    };
    let before = list();
    assert!(before.contains("user.name=An \"agent\"\n"), "{before}");
    succeeded(&setup(&sandbox).run());
    is_set(&sandbox, "/home/agent");
    assert_eq!(list(), before);
    assert!(text(&sandbox, AGENTS).starts_with(own), "{}", text(&sandbox, AGENTS));
}

fn odd_spellings_and_several_values_become_one() {
    for own in [
        "[Credential \"https://github.com\"]\n\tHELPER = a\n\tHelper = \"b;c\" # d\n\tuseHTTPPath\n",
        "[credential \"https://github.com\"]\n\thelper =\n\thelper = x\n\n[CREDENTIAL \"https://github.com\"]\n\thelper = y\n",
        "\u{feff}[credential \"https:\\/\\/github.com\"] helper = a\\\n b\r\n\tusehttppath = true\r\n",
        "",
        "\n\n# only a comment",
    ] {
        let sandbox = Sandbox::new();
        write(&sandbox, AGENTS, own);
        write(&sandbox, ROOTS, own);
        succeeded(&setup(&sandbox).run());
        is_set(&sandbox, "/root");
        is_set(&sandbox, "/home/agent");
    }
}

fn odd_helpers_read_back_through_git() {
    let sandbox = Sandbox::new();
    for helper in [
        "!f() { echo \"a;b#c\\\\d\"; }; f",
        "store --file '/tmp/a b'",
        "-x",
        "",
        " leading and trailing ",
        "two\nlines\tand a tab",
        "ünï",
        "[section]",
    ] {
        for _ in 0..2 {
            succeeded(&setup(&sandbox).arg(format!("--helper={helper}")).run());
            for home in ["/root", "/home/agent"] {
                assert_eq!(values(&sandbox, home, HELPER), [helper]);
            }
        }
    }
    succeeded(&setup(&sandbox).env("MOLECULE_GIT_HELPER", "cache").run());
    assert_eq!(values(&sandbox, "/root", HELPER), ["cache"]);
}

fn a_second_run_changes_nothing() {
    let sandbox = Sandbox::new();
    write(&sandbox, AGENTS, "[user]\n\tname = a\n");
    succeeded(&setup(&sandbox).run());
    let state = || {
        sandbox.sh(&format!(
            "stat -c '%n %i %z %y' {ROOTS} {AGENTS} /root /home/agent /run /tmp /var/tmp /"
        ))
    };
    let before = state();
    let outcome = setup(&sandbox).run();
    succeeded(&outcome);
    assert_eq!(state(), before);
    assert_eq!(outcome.stdout().matches("already set\n").count(), 2, "{outcome:?}");
}

fn modes_are_kept_and_the_owner_is_the_agent() {
    let sandbox = Sandbox::new();
    for mode in ["600", "664", "444"] {
        write(&sandbox, AGENTS, "[a]\n\tb = c\n");
        write(&sandbox, ROOTS, "[a]\n\tb = c\n");
        sandbox.sh(&format!("chmod {mode} {AGENTS} {ROOTS}"));
        succeeded(&setup(&sandbox).run());
        let states = sandbox.sh(&format!("stat -c '%a %U:%G' {ROOTS} {AGENTS}"));
        assert_eq!(states, format!("{mode} root:root\n{mode} agent:agent\n"));
    }
    // Set already, but as the image made it.
    sandbox.sh(&format!("chown root:root {AGENTS}; chmod 644 {AGENTS}"));
    succeeded(&setup(&sandbox).run());
    assert_eq!(sandbox.sh(&format!("stat -c '%a %U:%G' {AGENTS}")), "644 agent:agent\n");
}

fn homes_come_from_home_and_the_user_database() {
    let sandbox = Sandbox::new();
    for home in [None, Some(""), Some("relative")] {
        let run = setup(&sandbox).env_remove("HOME");
        let run = match home {
            Some(home) => run.env("HOME", home),
            None => run,
        };
        succeeded(&run.run());
        is_set(&sandbox, "/root");
        sandbox.sh(&format!("rm {ROOTS}"));
    }
    sandbox
        .sh("mkdir /srv; sed -i 's,/home/agent,/srv/bot,' /etc/passwd; mkdir /srv/bot /srv/root");
    sandbox.sh(&format!("rm {AGENTS}"));
    succeeded(&setup(&sandbox).env("HOME", "/srv/root").run());
    is_set(&sandbox, "/srv/root");
    is_set(&sandbox, "/srv/bot");
    assert!(!sandbox.path(ROOTS).exists() && !sandbox.path(AGENTS).exists());
    let absent = warning(&setup(&sandbox).env("HOME", "/nowhere").run());
    assert_eq!(absent, "open /nowhere: no such directory");
}

fn another_root_is_set_up_by_its_own_users() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p /image/etc /image/root /image/home/bot
         echo 'bot:x:1234:7::/home/bot:' > /image/etc/passwd
         echo 'bot:x:4321:' > /image/etc/group");
    succeeded(&setup(&sandbox).args(["--root", "/image", "--user", "bot"]).run());
    is_set(&sandbox, "/image/root");
    is_set(&sandbox, "/image/home/bot");
    assert_eq!(sandbox.sh("stat -c %u:%g /image/home/bot/.gitconfig"), "1234:4321\n");
    assert!(!sandbox.path(ROOTS).exists() && !sandbox.path(AGENTS).exists());
}

fn the_agent_by_hand_sets_its_own() {
    let sandbox = Sandbox::new();
    let outcome = setup(&sandbox).identity(1000, 1000, &[]).env("HOME", "/home/agent").run();
    succeeded(&outcome);
    is_set(&sandbox, "/home/agent");
    assert_eq!(sandbox.sh(&format!("stat -c %U:%G {AGENTS}")), "agent:agent\n");
    // Root with the agent's home as its own.
    sandbox.sh(&format!("rm {AGENTS}"));
    succeeded(&setup(&sandbox).env("HOME", "/home/agent").run());
    is_set(&sandbox, "/home/agent");
    assert_eq!(sandbox.sh(&format!("stat -c %U:%G {AGENTS}")), "agent:agent\n");
}

fn an_unknown_user_leaves_root_set_up() {
    let sandbox = Sandbox::new();
    let said = warning(&setup(&sandbox).args(["--user", "nosuch"]).run());
    assert!(said.contains("nosuch"), "{said}");
    is_set(&sandbox, "/root");
    assert!(!sandbox.path(AGENTS).exists());
}

fn a_broken_file_is_left_alone() {
    let sandbox = Sandbox::new();
    for own in ["[user\nname = secret\n", "[a]\n\tb = \"c\n", &"x".repeat(2 << 20)] {
        write(&sandbox, AGENTS, own);
        let said = warning(&setup(&sandbox).run());
        assert!(said.contains(AGENTS) && !said.contains("secret"), "{said}");
        assert_eq!(text(&sandbox, AGENTS), own);
        is_set(&sandbox, "/root");
    }
    // Root's broken one does not keep the agent from its own.
    write(&sandbox, ROOTS, "[user\n");
    sandbox.sh(&format!("rm {AGENTS}"));
    assert!(warning(&setup(&sandbox).run()).contains(ROOTS));
    is_set(&sandbox, "/home/agent");
}

fn without_git_there_is_one_clear_line() {
    let sandbox = Sandbox::new();
    let said = warning(&setup(&sandbox).env("PATH", "/usr/local/bin:/nowhere").run());
    assert_eq!(said, "set git credentials: no git in PATH; install git, or correct PATH");
    assert!(!sandbox.path(ROOTS).exists() && !sandbox.path(AGENTS).exists());
}

fn the_boot_sets_it_up_only_when_asked_and_never_fails() {
    for (variable, script, asked) in
        [("true", true, true), ("true", false, true), ("TRUE", true, false), ("", true, false)]
    {
        let sandbox = Sandbox::new();
        sandbox.install("/usr/local/bin/molecule-runtime", "#!/bin/sh\nexit 42\n");
        if script {
            sandbox.install(SCRIPT, "#!/bin/sh\n");
        }
        let boot = || {
            let run = sandbox.program().arg("entrypoint");
            run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", variable).run()
        };
        let outcome = boot();
        assert_eq!(outcome.status, 42, "{outcome:?}");
        assert_eq!(sandbox.path(AGENTS).exists(), asked, "{variable} {script}\n{outcome:?}");
        if asked {
            is_set(&sandbox, "/root");
            is_set(&sandbox, "/home/agent");
            write(&sandbox, AGENTS, "[broken\n");
            let outcome = boot();
            assert_eq!(outcome.status, 42, "{outcome:?}");
            assert!(outcome.stdout().contains("MOLECULE-GIT: WARN "), "{outcome:?}");
        }
    }
}
