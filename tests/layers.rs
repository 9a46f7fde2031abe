//! The direction of calls: no two files use each other in a loop, and where a module's description lists its
//! files, each uses only those listed after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use walkdir::WalkDir;

use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(no_two_files_use_each_other_in_a_loop, &[]),
        test_case!(each_file_uses_only_those_listed_after_it, &[]),
        test_case!(the_look_at_imports_finds_what_it_should, &[]),
    ]
}

/// Modules that list their files.
const LISTED: [&str; 17] = [
    "applets",
    "applets::fix_perms",
    "applets::restore",
    "applets::restore::source",
    "applets::token_refresh",
    "lib",
    "lib::audit",
    "lib::config",
    "lib::fs",
    "lib::github",
    "lib::identity",
    "lib::mirror",
    "lib::ownership",
    "lib::process",
    "lib::volume",
    "lib::volume::discover",
    "lib::volume::mount",
];

/// The files of a crate, by module path ("lib::mirror::walk"), and what each uses.
struct Modules {
    texts: BTreeMap<String, String>,
}

impl Modules {
    fn read() -> Self {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut texts = BTreeMap::new();
        for (directory, root) in [("src", "lib"), ("applets", "applets")] {
            for entry in WalkDir::new(top.join(directory)) {
                let entry = entry.unwrap();
                let path = entry.path();
                if path.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                let inner = path.strip_prefix(top.join(directory)).unwrap().with_extension("");
                let names = inner.iter().map(|name| name.to_str().unwrap());
                let names = names.filter(|name| !matches!(*name, "mod" | "lib" | "main"));
                let module = std::iter::once(root).chain(names).collect::<Vec<_>>().join("::");
                if !module.ends_with("::tests") {
                    texts.insert(module, std::fs::read_to_string(path).unwrap());
                }
            }
        }
        Self { texts }
    }

    /// Without comments, and without the tests at its end.
    fn code(&self, module: &str) -> String {
        let text = self.texts[module].split("\n#[cfg(test)]\n").next().unwrap();
        text.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The modules whose items `module` names.
    fn used_by(&self, module: &str) -> BTreeSet<String> {
        let code = self.code(module);
        let mut used = BTreeSet::new();
        for (start, _) in code.match_indices("::") {
            let before = &code[..start];
            let name =
                before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
            let (first, outer) = (&before[name..], &before[..name]);
            let base = match first {
                _ if outer.ends_with("::") => continue,
                "crate" => module.split("::").next().unwrap().to_owned(),
                "molecule_tools" => "lib".to_owned(),
                "super" => module.rsplit_once("::").unwrap().0.to_owned(),
                child if self.texts.contains_key(&format!("{module}::{child}")) => {
                    format!("{module}::{child}")
                }
                _ => continue,
            };
            for path in paths(&code[start + 2..]) {
                used.extend(self.resolve(&base, &path));
            }
        }
        used.remove(module);
        used
    }

    /// The module in which the item at `path` from `base` is, also where others hand it on (`pub use`).
    fn resolve(&self, base: &str, path: &[String]) -> Option<String> {
        let (name, rest) = path.split_first()?;
        if name == "super" {
            return self.resolve(base.rsplit_once("::")?.0, rest);
        }
        let inner = format!("{base}::{name}");
        if self.texts.contains_key(&inner) {
            return if rest.is_empty() { Some(inner) } else { self.resolve(&inner, rest) };
        }
        let code = self.code(base);
        for (at, _) in code.match_indices("pub use ") {
            for handed_on in paths(&code[at + 8..]) {
                let at_home = self.texts.contains_key(&format!("{base}::{}", handed_on[0]));
                if at_home && handed_on.last() == Some(name) {
                    return self.resolve(base, &handed_on);
                }
            }
        }
        Some(base.to_owned())
    }
}

/// The paths that `text` begins with: `a::{b, c::d}` is two.
fn paths(text: &str) -> Vec<Vec<String>> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut found = Vec::new();
    if name.is_empty() && rest.starts_with('{') {
        let mut depth = 0;
        let mut start = 1;
        for (at, c) in rest.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 || depth == 1 && c == ',' {
                found.extend(paths(rest[start..at].trim()));
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
        return found;
    }
    let name = if name == "self" { Vec::new() } else { vec![name.to_owned()] };
    match rest.strip_prefix("::") {
        Some(rest) => {
            found.extend(paths(rest).into_iter().map(|path| [name.clone(), path].concat()));
        }
        None => found.push(name),
    }
    found
}

/// The names in the list of a module's description, in order.
fn listed(text: &str) -> Vec<String> {
    let items = text.lines().filter_map(|line| line.strip_prefix("//! - "));
    let heads = items.filter_map(|line| line.split_once(':').map(|(head, _)| head));
    let names = heads.flat_map(|head| head.split(", "));
    names.map(|name| name.trim_matches(['[', ']', '`']).to_owned()).collect()
}

fn no_two_files_use_each_other_in_a_loop() {
    let modules = Modules::read();
    let uses: BTreeMap<_, _> =
        modules.texts.keys().map(|module| (module.clone(), modules.used_by(module))).collect();
    let reach = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(module) = next.pop() {
            next.extend(uses[module].iter().filter(|used| seen.insert((*used).clone())));
        }
        seen
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|module| (module, reach(module))).collect();
    let loops: BTreeSet<Vec<&String>> = reached
        .iter()
        .filter(|(module, reached)| reached.contains(**module))
        .map(|(module, with)| {
            with.iter().filter(|other| reached[other].contains(*module)).collect()
        })
        .collect();
    assert!(loops.is_empty(), "loops: {loops:#?}");
}

fn each_file_uses_only_those_listed_after_it() {
    let modules = Modules::read();
    for parent in LISTED {
        let order = listed(&modules.texts[parent]);
        let children: BTreeSet<String> = modules
            .texts
            .keys()
            .filter_map(|module| module.strip_prefix(parent)?.strip_prefix("::"))
            .map(|inner| inner.split("::").next().unwrap().to_owned())
            .collect();
        assert_eq!(
            order.iter().cloned().collect::<BTreeSet<_>>(),
            children,
            "the list of {parent}"
        );
        let place = |name: &str| order.iter().position(|it| it == name).unwrap();
        for (module, name) in modules.texts.keys().filter_map(|module| {
            let inner = module.strip_prefix(parent)?.strip_prefix("::")?;
            Some((module, inner.split("::").next()?))
        }) {
            for used in modules.used_by(module) {
                let Some(inner) = used.strip_prefix(parent).and_then(|it| it.strip_prefix("::"))
                else {
                    continue;
                };
                let other = inner.split("::").next().unwrap();
                assert!(
                    place(name) <= place(other),
                    "{module} uses {used}, which is listed before"
                );
            }
        }
    }
}

fn the_look_at_imports_finds_what_it_should() {
    let texts = [
        ("lib", "pub mod a;"),
        ("lib::a", "pub use b::Thing;\nmod b;\nmod c;\nfn f() { c::f() }"),
        ("lib::a::b", "use super::c::{self, Other};\nuse crate::d::e::F;"),
        ("lib::a::c", "fn f() { super::b::g() }\n// super::d::x"),
        ("lib::d", "use crate::a::Thing;"),
        ("lib::d::e", ""),
    ];
    let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let modules = Modules { texts };
    let used = |module: &str| modules.used_by(module).into_iter().collect::<Vec<_>>();
    assert_eq!(used("lib::a"), ["lib::a::b", "lib::a::c"]);
    assert_eq!(used("lib::a::b"), ["lib::a::c", "lib::d::e"]);
    assert_eq!(used("lib::a::c"), ["lib::a::b"]);
    assert_eq!(used("lib::d"), ["lib::a::b"]);
    assert_eq!(listed("//! - [`a`]: one\n//! - `b`, `c`: two, three\n//! text"), ["a", "b", "c"]);
}
