//! Completion scripts for shells, derived from the table. Program names come from the daemon at
//! the moment of completion (`multusctl names`), never from a list that could be old.

use super::signals;
use crate::config::replaced;

use super::table::{COMMANDS, COMMON, Command, Opt, Takes, shown};

/// The script for `bash`, `zsh` or `fish`; none for other shells.
pub fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

const HEAD: &str = "# Completion of multusctl. Generated: multusctl completion ";

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

/// A script with its places filled in.
fn filled(script: &str, places: &[(&str, &String)]) -> String {
    places.iter().fold(script.to_string(), |script, (place, text)| replaced(&script, place, text))
}

/// All options that take a value, as alternatives of a shell pattern.
fn with_value() -> String {
    let mut names: Vec<&str> = Vec::new();
    for opt in COMMON.iter().chain(COMMANDS.iter().flat_map(|command| command.options)) {
        if !opt.value.is_empty() && !names.contains(&opt.long) {
            names.push(opt.long);
        }
    }
    names.iter().map(|name| ["--", name].concat()).collect::<Vec<_>>().join("|")
}

fn options_of(command: &Command) -> String {
    command.options.iter().map(|opt| [" --", opt.long].concat()).collect()
}

/// The words after `outputs`.
const LEVELS: &str = "set high low on off";

/// What bash and zsh do for the arguments of a command: a word list, or a function call.
fn words_for(takes: Takes) -> Option<String> {
    match takes {
        Takes::Programs => Some("all $(_multusctl_names)".to_string()),
        Takes::ProgramsAndSignal => {
            Some(["all reload $(_multusctl_names) ", &joined(signals::names())].concat())
        }
        Takes::Level => Some(LEVELS.to_string()),
        Takes::Shell => Some("bash zsh fish".to_string()),
        Takes::Key => Some(joined(shown().map(|command| command.name)) + " keys"),
        Takes::Nothing | Takes::File => None,
    }
}

const BASH: &str = r#"
_multusctl_names() {
    multusctl "${multusctl_run[@]}" --timeout 1s names 2>/dev/null
}

_multusctl() {
    local word=${COMP_WORDS[COMP_CWORD]} command= options= words= files= i
    local -a multusctl_run=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            @WITH_VALUE@)
                local option=${COMP_WORDS[i]}
                # bash splits --option=value at the equals sign.
                [[ ${COMP_WORDS[i + 1]} == = ]] && ((i++))
                ((i++))
                if ((i >= COMP_CWORD)); then
                    [[ $word == = ]] && word=
                    [[ $option == --run-dir ]] && compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    return
                fi
                [[ $option == --run-dir ]] && multusctl_run=(--run-dir "${COMP_WORDS[i]}")
                ;;
            -*) ;;
            *) [[ $command ]] || command=${COMP_WORDS[i]} ;;
        esac
    done
    case $command in
        '') words='@COMMANDS@' ;;
@CASES@    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "@COMMON@$options" -- "$word")
    elif [[ $files ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}

complete -F _multusctl multusctl
"#;

fn bash() -> String {
    let mut cases = String::new();
    for command in shown() {
        let options = options_of(command);
        let mut does = Vec::new();
        if !options.is_empty() {
            does.push(["options='", &options, "'"].concat());
        }
        if let Some(words) = words_for(command.takes) {
            does.push(["words=\"", &words, "\""].concat());
        }
        if command.takes == Takes::File {
            does.push("files=1".to_string());
        }
        if !does.is_empty() {
            cases += &["        ", command.name, ") ", &does.join("; "), " ;;\n"].concat();
        }
    }
    let common = COMMON.iter().map(|opt| ["--", opt.long].concat()).collect::<Vec<_>>().join(" ");
    let commands = joined(shown().map(|command| command.name));
    let places = [
        ("@WITH_VALUE@", &with_value()),
        ("@COMMANDS@", &commands),
        ("@CASES@", &cases),
        ("@COMMON@", &common),
    ];
    [HEAD, "bash\n", &filled(BASH, &places)].concat()
}

const ZSH: &str = r#"
# Names of programs, and the words given.
_multusctl_names() {
    local -a names
    [[ -n ${opt_args[--run-dir]} ]] && multusctl_run=(--run-dir ${(Q)opt_args[--run-dir]})
    names=(${(f)"$(_call_program programs multusctl $multusctl_run --timeout 1s names 2>/dev/null)"})
    compadd -a names
    compadd -- "$@"
}

_multusctl() {
    local context state state_descr line
    local -A opt_args
    local -a commands common multusctl_run
    commands=(
@COMMANDS@    )
    common=(
@COMMON@    )
    _arguments -C $common '(-)1:command:->command' '(-)*::argument:->argument' && return
    case $state in
        command) _describe -t commands command commands ;;
        argument)
            # What stood before the command is forgotten once the command's own are looked at.
            [[ -n ${opt_args[--run-dir]} ]] && multusctl_run=(--run-dir ${(Q)opt_args[--run-dir]})
            case $line[1] in
@CASES@            esac
            ;;
    esac
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _multusctl "$@"
else
    compdef _multusctl multusctl
fi
"#;

/// A word in single quotes for a shell.
fn quoted(text: &str) -> String {
    ["'", &text.replace('\'', "'\\''"), "'"].concat()
}

/// An option as `_arguments` wants it; brackets and colons in the sentence end it there.
fn zsh_option(opt: &Opt) -> String {
    let what = opt.what.replace('[', "(").replace(']', ")");
    let value = match opt.value {
        "" => String::new(),
        "DIR" => ":directory:_files -/".to_string(),
        value => [":", value, ": "].concat(),
    };
    let equals = if opt.value.is_empty() { "" } else { "=" };
    quoted(&["--", opt.long, equals, "[", &what, "]", &value].concat())
}

fn zsh() -> String {
    let mut commands = String::new();
    let mut cases = String::new();
    for command in shown() {
        let described = [command.name, ":", command.what.trim_end_matches('.')].concat();
        commands += &["        ", &quoted(&described), "\n"].concat();
        let mut specs: Vec<String> = command.options.iter().map(|opt| zsh_option(opt)).collect();
        specs.push("$common".to_string());
        specs.extend(match command.takes {
            Takes::Nothing => None,
            Takes::Programs => Some("'*:program: _multusctl_names all'".to_string()),
            Takes::ProgramsAndSignal => {
                let words = ["all reload ", &joined(signals::names())].concat();
                Some(["'*:program or signal: _multusctl_names ", &words, "'"].concat())
            }
            Takes::File => Some("'1:file:_files'".to_string()),
            Takes::Level => Some(["'*:word:(", LEVELS, ")'"].concat()),
            Takes::Shell => Some("'1:shell:(bash zsh fish)'".to_string()),
            Takes::Key => Some(
                ["'1:command or key:(", &joined(shown().map(|command| command.name)), " keys)'"].concat(),
            ),
        });
        cases += &["                ", command.name, ") _arguments ", &specs.join(" "), " ;;\n"].concat();
    }
    let common: String = COMMON.iter().map(|opt| ["        ", &zsh_option(opt), "\n"].concat()).collect();
    let places = [("@COMMANDS@", &commands), ("@COMMON@", &common), ("@CASES@", &cases)];
    ["#compdef multusctl\n", HEAD, "zsh\n", &filled(ZSH, &places)].concat()
}

const FISH: &str = r#"
function __multusctl_names
    set -l run
    set -l words (commandline -opc)
    for i in (seq (count $words))
        switch $words[$i]
            case --run-dir
                set -l next (math $i + 1)
                set -q words[$next]; and set run --run-dir $words[$next]
            case '--run-dir=*'
                set run $words[$i]
        end
    end
    multusctl $run --timeout 1s names 2>/dev/null
end

# The command on the line, if it is there already; with an argument, whether it is that one.
function __multusctl_command
    set -l words (commandline -opc)
    set -l i 2
    while set -q words[$i]
        switch $words[$i]
            case @WITH_VALUE@
                set i (math $i + 1)
            case '-*'
            case '*'
                test (count $argv) -eq 0; or contains -- $words[$i] $argv
                return
        end
        set i (math $i + 1)
    end
    return 1
end

complete -c multusctl -f
"#;

fn fish() -> String {
    let places = [("@WITH_VALUE@", &with_value().replace('|', " "))];
    let mut text = [HEAD, "fish\n", &filled(FISH, &places)].concat();
    let mut line = |words: &[&str]| {
        text += "complete -c multusctl ";
        text += &words.concat();
        text += "\n";
    };
    for opt in COMMON {
        fish_option(&mut line, "", opt);
    }
    for command in shown() {
        let what = quoted(command.what.trim_end_matches('.'));
        line(&["-n 'not __multusctl_command' -a ", command.name, " -d ", &what]);
        let here = ["-n '__multusctl_command ", command.name, "' "].concat();
        for opt in command.options {
            fish_option(&mut line, &here, opt);
        }
        match command.takes {
            Takes::Nothing => {}
            Takes::Programs => line(&[&here, "-a 'all (__multusctl_names)'"]),
            Takes::ProgramsAndSignal => {
                line(&[&here, "-a 'all reload (__multusctl_names) ", &joined(signals::names()), "'"]);
            }
            Takes::File => line(&[&here, "-F"]),
            Takes::Level => line(&[&here, "-a '", LEVELS, "'"]),
            Takes::Shell => line(&[&here, "-a 'bash zsh fish'"]),
            Takes::Key => line(&[&here, "-a '", &joined(shown().map(|command| command.name)), " keys'"]),
        }
    }
    text
}

fn fish_option(line: &mut impl FnMut(&[&str]), here: &str, opt: &Opt) {
    let value = match opt.value {
        "" => "",
        "DIR" => " -r -a '(__fish_complete_directories)'",
        _ => " -x",
    };
    line(&[here, "-l ", opt.long, value, " -d ", &quoted(opt.what)]);
}
