//! A bad scenario gets an error with file, line and what is allowed.

use std::path::Path;

use commonhold_simulations::Scenario;

const GOOD: &str = "name = \"n\"
source = \"s\"
duration = \"30 d\"
[network]
nodes = 100
segments = 10
coding = \"7/14\"
threshold = 10
[audit]
grace = \"12 h\"
[[population]]
name = \"all\"
lifetime = { law = \"exponential\", mean = \"180 d\" }
";

fn refusal(text: &str) -> String {
    Scenario::parse(text, Path::new("bad.toml"), Path::new(".")).expect_err("a bad scenario").to_string()
}

#[test]
fn the_good_one_is_good() {
    assert!(Scenario::parse(GOOD, Path::new("good.toml"), Path::new(".")).is_ok());
}

#[test]
fn errors_name_file_line_and_what_is_allowed() {
    for (from, to, line, allowed) in [
        ("nodes = 100\n", "", 4, "`nodes` is missing: 4 to 10000000 nodes"),
        ("duration = \"30 d\"\n", "", 1, "`duration` is missing: a length of time"),
        ("nodes = 100", "nodes = 3", 5, "4 to 10000000 nodes are allowed"),
        ("segments = 10", "segments = -1", 6, "allowed is 1 to 100000000 segments"),
        ("segments = 10", "segments = \"ten\"", 6, "`segments`: invalid type: string \"ten\": allowed is 1 to"),
        ("threshold = 10", "threshold = 300", 8, "`threshold`: invalid value: integer `300`: allowed is k to n - 1"),
        ("coding = \"7/14\"\n", "", 7, "20/40 (policy's choice, since none is given), 20 to 39 are allowed"),
        ("\"7/14\"", "\"14/7\"", 7, "1 <= K <= N"),
        ("\"7/14\"", "\"7/7\"", 7, "k below n"),
        ("\"7/14\"", "\"90/180\"", 7, "90/180 needs 180 nodes, and there are 100"),
        ("threshold = 10", "threshold = 14", 8, "7 to 13 are allowed"),
        ("threshold = 10", "threshold = 6", 8, "7 to 13 are allowed"),
        ("\"12 h\"", "\"-12 h\"", 10, "a length of time that is not negative is allowed"),
        ("grace =", "grease =", 10, "expected `every` or `grace`"),
        ("mean = \"180 d\"", "mean = \"-1 d\"", 13, "a length of time that is not negative is allowed"),
        ("mean = \"180 d\"", "mean = 180", 13, "`lifetime`: invalid type: integer `180`: allowed is a law, as in"),
        ("law = \"exponential\", mean", "law = \"log-normal\", median", 13, "`sigma` is missing: a number above 0"),
        ("{ law = \"exponential\", mean = \"180 d\" }", "\"180 d\"", 13, "`lifetime`: invalid type: string \"180 d\""),
        ("exponential\", mean = \"180 d\"", "never\", mean = \"180 d\"", 13, "unknown field `mean`"),
        ("exponential\", mean = \"180 d\"", "empirical\", file = \"no\"", 13, "`file`: ./no: cannot be read"),
        (
            "name = \"all\"\n",
            "name = \"all\"\ncheat = { kind = \"fetch-on-demand\", lost = 1.0 }\n",
            13,
            "unknown field",
        ),
        ("[audit]\n", "[sweep]\nevery = [\"1 d\", \"0 s\"]\n[audit]\n", 10, "more than 0 is allowed"),
        ("[audit]\n", "[[incident]]\nat = \"6 d\"\nnodes = 1000\n[audit]\n", 11, "1 to 100 are allowed"),
        ("[audit]\n", "[[incident]]\nat = \"6 d\"\nregion = \"moon\"\n[audit]\n", 11, "no population has `regions`"),
        (
            "[audit]\n",
            "[[incident]]\nat = \"6 d\"\npopulation = \"all\"\nregion = \"moon\"\n[audit]\n",
            12,
            "none is allowed, since all has no `regions`",
        ),
        (
            "[audit]\n",
            "[[incident]]\nat = \"6 d\"\nof = \"cut\"\nnodes = 21\n[[incident]]\nname = \"cut\"\nat = \"5 d\"\n\
             lasts = \"1 h\"\nshare = 0.2\n[audit]\n",
            12,
            "1 to 20 are allowed",
        ),
        (
            "[audit]\n",
            "[[incident]]\nat = \"5 d\"\nname = \"off\"\nlasts = \"1 h\"\noperators = 2\n[[incident]]\n\
             at = \"6 d\"\nof = \"off\"\noperators = 3\n[audit]\n",
            17,
            "1 to 2 are allowed",
        ),
        (
            "[audit]\n",
            "[[incident]]\nat = \"5 d\"\nname = \"cut\"\n[[incident]]\nat = \"6 d\"\nname = \"cut\"\n[audit]\n",
            14,
            "only a name that no other has is allowed",
        ),
        ("[audit]\n", "[sweep]\n[audit]\n", 9, "`[sweep]`: lists of values are allowed, one at least"),
        ("[audit]\n", "[[incident]]\nat = \"6 d\"\noperators = 101\n[audit]\n", 11, "1 to 100 are allowed"),
        (
            "[audit]\n",
            "[[incident]]\nat = \"6 d\"\nof = \"it\"\n[audit]\n",
            11,
            "no incident before it has a `name` and `lasts`",
        ),
        (
            "[audit]\n",
            "[[incident]]\nat = \"6 d\"\nof = \"it\"\n[[incident]]\nat = \"5 d\"\nname = \"cut\"\nlasts = \"1 h\"\n[audit]\n",
            11,
            "allowed are those before it: cut",
        ),
        (
            "[audit]\n",
            "[[incident]]\nat = \"6 d\"\nshare = 0.5\nnodes = 10\n[audit]\n",
            12,
            "only one of `share`, `operators` and `nodes` is allowed",
        ),
        (
            "[audit]\n",
            "[[incident]]\nat = \"6 d\"\nshare = 0.5\noperators = 1\n[audit]\n",
            12,
            "only one of `share`, `operators` and `nodes` is allowed",
        ),
        ("\"exponential\"", "\"gauss\"", 13, "`weibull`"),
        ("name = \"all\"\n", "name = \"all\"\nshare = 0.5\n", 13, "must add up to 1"),
        (
            "name = \"all\"\n",
            "name = \"some\"\nshare = 0.5\nlifetime = { law = \"never\" }\n[[population]]\nname = \"all\"\n",
            16,
            "must add up to 1, not 1.5",
        ),
        ("duration = \"30 d\"", "duration = \"0 d\"", 3, "more than 0 and at most 1000 years"),
        (
            "name = \"all\"\n",
            "name = \"all\"\noffline = { law = \"fixed\", value = \"1 h\" }\n",
            13,
            "give `online` too",
        ),
        (
            "name = \"all\"\n",
            "name = \"all\"\nonline = { law = \"fixed\", value = \"1 h\" }\n",
            13,
            "give `offline` too",
        ),
        ("name = \"all\"\n", "name = \"all\"\nnight = { asleep = \"8 h\", zones = [15] }\n", 13, "-12 to 14"),
        ("name = \"all\"\n", "name = \"all\"\nnight = { asleep = \"23 h\" }\n", 13, "less than 22 h"),
        ("name = \"all\"\n", "name = \"all\"\nupload = \"20 MB\"\n", 13, "a data rate is allowed"),
        ("name = \"all\"\n", "name = \"all\"\ndisk = \"0 B\"\n", 13, "a size is allowed"),
        ("name = \"all\"\n", "name = \"all\"\ncheat = { kind = \"drop\", lost = 1.5 }\n", 13, "a share from 0 to 1"),
        ("name = \"all\"\n", "name = \"all\"\nper-domain = 0\n", 13, "1 to 10000000 nodes"),
        ("[audit]\n", "[audit]\nevery = \"0 s\"\n", 10, "more than 0 is allowed"),
        (
            "[audit]\n",
            "[repair]\ntime = { law = \"exponential\", mean = \"0 s\" }\n[audit]\n",
            10,
            "more than 0 is allowed",
        ),
        ("mean = \"180 d\"", "mean = \"0 d\"", 13, "more than 0 is allowed"),
        ("[audit]\n", "[sweep]\ncoding = [\"7/14\", \"3/2\"]\n[audit]\n", 10, "1 <= K <= N"),
        ("[audit]\n", "[sweep]\nthreshold = [2.0]\n[audit]\n", 10, "a share from 0 to 1"),
        ("[audit]\n", "[[incident]]\nat = \"60 d\"\n[audit]\n", 10, "before the end"),
        ("name = \"n\"\n", "name = \"n\"\nruns = 0\n", 2, "1 to 10000 runs"),
        ("[network]\n", "[network\n", 4, ""),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let told = refusal(&GOOD.replacen(from, to, 1));
        assert!(told.starts_with(&format!("bad.toml, line {line}: ")), "{to:?}: {told}");
        assert!(told.contains(allowed), "{to:?}: {told}");
    }
}

/// It would strike none, or fewer than it says, and say nothing of that.
#[test]
fn an_incident_strikes_no_region_that_its_population_lacks_and_no_more_nodes_than_that_has() {
    let with = |incident: &str| {
        format!(
            "{}share = 0.75\nregions = [\"east\", \"west\"]\nper-operator = 10\n[[population]]\nname = \"few\"\n\
             share = 0.25\nlifetime = {{ law = \"never\" }}\nregions = [\"moon\"]\n[[incident]]\nat = \"6 d\"\n{incident}",
            GOOD
        )
    };
    let few = "population = \"few\"\n";
    for (incident, line, allowed) in [
        (format!("{few}region = \"east\""), 25, "`[[incident]] region`: allowed are moon"),
        (format!("{few}nodes = 26"), 25, "`[[incident]] nodes`: 1 to 25 are allowed"),
        ("region = \"east\"\nnodes = 38".to_owned(), 25, "`[[incident]] nodes`: 1 to 37 are allowed"),
        (format!("{few}operators = 26"), 25, "`[[incident]] operators`: 1 to 25 are allowed"),
        ("region = \"east\"\noperators = 9".to_owned(), 25, "`[[incident]] operators`: 1 to 8 are allowed"),
        ("operators = 34".to_owned(), 24, "`[[incident]] operators`: 1 to 33 are allowed"),
    ] {
        let told = refusal(&with(&incident));
        assert!(told.starts_with(&format!("bad.toml, line {line}: ")) && told.contains(allowed), "{incident}: {told}");
    }
    for incident in
        [format!("{few}nodes = 25"), format!("{few}region = \"moon\"\nnodes = 25"), "nodes = 100".to_owned()]
    {
        let parsed = Scenario::parse(&with(&incident), Path::new("good.toml"), Path::new("."));
        assert!(parsed.is_ok(), "{incident}: {parsed:?}");
    }
}

/// Four lists that are allowed each by itself.
#[test]
fn too_many_combinations_are_refused_by_the_line_of_their_section() {
    let list = |count: u32| (1..=count).map(|days| format!("\"{days} d\"")).collect::<Vec<_>>().join(", ");
    let with = |count| {
        let lists = format!("grace = [{0}]\nevery = [{0}]\ntop-up = [{0}]", list(count));
        GOOD.replace("[audit]\n", &format!("[sweep]\nthreshold = [0.1, 0.2, 0.3, 0.4, 0.5]\n{lists}\n[audit]\n"))
    };
    assert!(Scenario::parse(&with(12), Path::new("good.toml"), Path::new(".")).is_ok());
    let told = refusal(&with(13));
    assert!(
        told.starts_with("bad.toml, line 9: `[sweep]`: at most 10000 combinations are allowed, and these are 10985"),
        "{told}"
    );
}

#[test]
fn a_trace_that_is_not_sorted_is_refused_by_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = GOOD.replace("law = \"exponential\", mean = \"180 d\"", "law = \"empirical\", file = \"lives.txt\"");
    let parse = |lives: &str| {
        std::fs::write(folder.path().join("lives.txt"), lives).expect("written");
        Scenario::parse(&text, Path::new("bad.toml"), folder.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(parse("# hours\n1\n2.5 # and a half\n\n100\n"), Ok(()));
    let told = parse("# hours\n1\n3\n2\n").expect_err("not sorted");
    assert!(told.contains("lives.txt, line 4: 2 after 3: hours must be sorted, ascending"), "{told}");
    let told = parse("1\n-2\n").expect_err("negative");
    assert!(told.contains("lives.txt, line 2: \"-2\": a number of hours is allowed, 0 or more"), "{told}");
    assert!(parse("# nothing\n").is_err());
}

/// All keys there are.
const EVERY_KEY: &str = "name = \"n\"
source = \"s\"
duration = \"30 d\"
seed = 1
runs = 1
[network]
nodes = 100
segments = 10
segment-size = \"16 MiB\"
coding = \"7/14\"
threshold = 10
renew-lost = false
[audit]
every = \"7 d\"
grace = \"12 h\"
[repair]
top-up = \"7 d\"
time = { law = \"log-normal\", median = \"1 h\", sigma = 1.0 }
rate = \"10 Mbit/s\"
[[population]]
name = \"all\"
share = 0.5
lifetime = { law = \"weibull\", shape = 0.6, scale = \"180 d\" }
online = { law = \"pareto\", shape = 2.0, minimum = \"1 h\" }
offline = { law = \"fixed\", value = \"1 h\" }
disk = \"200 GiB\"
upload = \"20 Mbit/s\"
download = \"100 Mbit/s\"
per-domain = 1
per-operator = 1
regions = [\"east\"]
one-disk = false
[[population]]
name = \"cheats\"
share = 0.5
lifetime = { law = \"never\" }
night = { asleep = \"8 h\", share = 0.5, zones = [0] }
cheat = { kind = \"drop\", lost = 0.1, answers = \"wrong\" }
[[incident]]
name = \"cut\"
at = \"5 d\"
region = \"east\"
population = \"all\"
share = 1.0
lasts = \"1 d\"
[[incident]]
at = \"6 d\"
of = \"cut\"
operators = 2
[[incident]]
at = \"6 d\"
nodes = 2
[sweep]
coding = [\"3/6\"]
threshold = [0.5]
grace = [\"1 h\"]
every = [\"1 d\"]
top-up = [\"1 d\"]
";

/// Each key by itself is left out, misspelt, or given what it cannot be: what follows is either a good scenario or told
/// with a line that there is, and with what is allowed.
#[test]
fn whatever_is_wrong_is_told_with_its_line_and_what_is_allowed() {
    let parse = |text: &str| Scenario::parse(text, Path::new("bad.toml"), Path::new("."));
    parse(EVERY_KEY).unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<&str> = EVERY_KEY.lines().collect();
    let mut refused = 0;
    for (number, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let wrong = ["-1", "0", "1.5", "true", "\"\"", "\"-5 d\"", "\"x\"", "[]", "[-1]", "{}", "nan", "1e400"];
        let wrong = wrong.iter().map(|value| format!("{key} = {value}"));
        let others = [String::new(), key.to_owned(), format!("{key}y = 1"), format!("{line}\n{line}")];
        for instead in wrong.chain(others) {
            let mut changed: Vec<&str> = lines.clone();
            changed[number] = &instead;
            let Err(error) = parse(&changed.join("\n")) else { continue };
            refused += 1;
            let told = error.to_string();
            let rest = told.strip_prefix("bad.toml, line ").unwrap_or_else(|| panic!("{instead:?}: {told}"));
            let (at, said) = rest.split_once(": ").expect("a line and what is said");
            assert!((1..=lines.len() + 1).contains(&at.parse::<usize>().expect("a number")), "{instead:?}: {told}");
            let says =
                ["allowed", "expected", "missing", "must add up", "duplicate key", "give `", "needs", "in one zone"];
            assert!(says.iter().any(|word| said.contains(word)), "{instead:?}: {told}");
            let inside = ["enum ", "struct ", "u32", "f64", "internally"];
            assert!(!inside.iter().any(|word| said.contains(word)), "{instead:?}: {told}");
        }
    }
    assert!(refused > 400, "{refused}");
}
