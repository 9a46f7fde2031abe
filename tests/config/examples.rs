//! Five images: each boots with its configuration and with a small script that does the same, and what the two
//! leave is compared.

use crate::differential::compare;
use crate::differential::observe::{self, Observed};
use crate::support::sandbox::Run;
use crate::support::{Case, Need, case, runtime};

const NEEDS: &[Need] = &[Need::Root, Need::Program("gosu")];
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/examples");

/// An image.
struct Example {
    name: &'static str,
    /// The configuration, in the directory of the examples.
    config: &'static str,
    /// The script.
    script: &'static str,
    /// sh, as root inside, before the boot.
    setup: &'static str,
    run: fn(Run) -> Run,
    /// Entries that both have to leave: so nothing passes that does nothing.
    leaves: &'static [(&'static str, &'static str, &'static str)],
}

const EXAMPLES: [Example; 5] = [
    Example {
        name: "claude_code_is_the_configuration_without_a_word",
        config: "claude-code.json",
        script: "claude-code.sh",
        setup: "echo x > /configs/config.yaml; mkdir /workspace/src; echo x > /workspace/src/f",
        run: |run| run.env("ANTHROPIC_API_KEY", "secret"),
        leaves: &[
            ("/workspace/src/f", "owner", "1000:1000"),
            ("/home/agent/.molecule-token-cache", "mode", "40700"),
        ],
    },
    Example {
        name: "skills_are_linked_and_a_hook_writes_netrc",
        config: "skills.json",
        script: "claude-code.sh",
        setup: "mkdir /configs/skills; echo x > /configs/skills/a.md",
        run: |run| run.env("SKILLS", "yes").env("GIT_TOKEN", "t0ken"),
        leaves: &[
            ("/home/agent/.claude/skills", "target", "/configs/skills"),
            ("/home/agent/.netrc", "mode", "100600"),
            ("/home/agent/.netrc", "owner", "1000:1000"),
        ],
    },
    Example {
        name: "codex_keeps_its_login_to_itself_and_workspace_is_left_alone",
        config: "codex.json",
        script: "codex.sh",
        setup: "mkdir /home/agent/.codex; echo '{}' > /home/agent/.codex/auth.json
                chmod 644 /home/agent/.codex/auth.json; echo x > /workspace/f",
        run: |run| run.env("OPENAI_API_KEY", "secret"),
        leaves: &[
            ("/home/agent/.codex/auth.json", "mode", "100600"),
            ("/home/agent/.codex/auth.json", "owner", "1000:1000"),
            ("/workspace/f", "owner", "0:0"),
        ],
    },
    Example {
        name: "hermes_lives_in_configs_and_has_tmp_as_its_home",
        config: "hermes.json",
        script: "hermes.sh",
        setup: "echo x > /workspace/f; mkdir /configs/.hermes; echo x > /configs/.hermes/state",
        run: |run| run,
        leaves: &[
            ("/tmp/.hermes", "target", "/configs/.hermes"),
            ("/tmp/.hermes", "owner", "1000:1000"),
            ("/workspace/f", "owner", "1000:1000"),
        ],
    },
    Example {
        name: "openclaw_shows_its_token_without_what_is_in_it",
        config: "openclaw.json",
        script: "openclaw.sh",
        setup: "printf t0ken > /configs/.auth_token; chmod 600 /configs/.auth_token
                mkdir /home/agent/.openclaw; echo x > /home/agent/.openclaw/f",
        run: |run| run,
        leaves: &[
            ("/home/agent/.npmrc", "mode", "100600"),
            ("/home/agent/.openclaw", "mode", "40700"),
            ("/home/agent/.openclaw/f", "owner", "1000:1000"),
        ],
    },
];

pub fn cases() -> Vec<Case> {
    EXAMPLES.iter().map(|example| case(example.name, NEEDS, || compare_boots(example))).collect()
}

fn boot(example: &Example, entrypoint: &str) -> (Observed, String) {
    let (config, script) = (example.config, example.script);
    let sandbox = runtime::sandbox(&format!(
        "mkdir -p opt/molecule; cp {FILES}/audit.sh {FILES}/netrc.sh opt/molecule/
         chmod 755 opt/molecule/netrc.sh
         cp {FILES}/{config} etc/molecule-tools.json; cp {FILES}/{script} entrypoint.sh
         chmod 644 etc/molecule-tools.json; chmod 755 entrypoint.sh
         ln -s molecule-tools usr/local/bin/entrypoint"
    ));
    sandbox.sh(example.setup);
    let now = observe::age(&sandbox);
    let outcome = (example.run)(sandbox.command(entrypoint)).args(["--model", "opus"]).run();
    let said = outcome.stdout() + &outcome.stderr();
    assert!(!said.contains("WARN"), "{said}");
    (observe::left(&sandbox, &outcome, now), said)
}

fn compare_boots(example: &Example) {
    let (script, _) = boot(example, observe::REFERENCE);
    let (program, said) = boot(example, observe::PROGRAM);
    let found = compare::differences(&script, &program);
    // The shell puts it there.
    let found: Vec<String> = found
        .iter()
        .filter(|difference| difference.key != "view env \"PWD\"")
        .map(|difference| format!("{}: {}", difference.key, difference.detail))
        .collect();
    assert_eq!(found, Vec::<String>::new(), "{said}");
    assert_eq!(program.status, runtime::STATUS, "{said}");
    for (path, attribute, value) in example.leaves {
        assert_eq!(program.tree[*path][attribute], *value, "{path} {attribute}");
    }
    for secret in ["t0ken", "secret"] {
        assert!(!said.contains(secret), "{said}");
    }
}
