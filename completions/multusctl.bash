# Completion of multusctl. Generated: multusctl completion bash

_multusctl_names() {
    multusctl "${multusctl_run[@]}" --timeout 1s names 2>/dev/null
}

_multusctl() {
    local word=${COMP_WORDS[COMP_CWORD]} command= options= words= files= i
    local -a multusctl_run=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --run-dir|--timeout|--lines|--since|--status|--for|--unit|--in|--lang)
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
        '') words='status start stop restart once pause cont signal reload log events inputs outputs beat watchdog values publish reasons reboot poweroff renew quit check new key help version completion' ;;
        status) options=' --json --watch'; words="all $(_multusctl_names)" ;;
        start) options=' --wait'; words="all $(_multusctl_names)" ;;
        stop) options=' --wait'; words="all $(_multusctl_names)" ;;
        restart) options=' --wait'; words="all $(_multusctl_names)" ;;
        once) options=' --wait'; words="all $(_multusctl_names)" ;;
        pause) words="all $(_multusctl_names)" ;;
        cont) words="all $(_multusctl_names)" ;;
        signal) words="all reload $(_multusctl_names) HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS" ;;
        reload) options=' --dry-run --wait' ;;
        log) options=' --follow --lines --since --stdout --stderr --json --sync --usage'; words="all $(_multusctl_names)" ;;
        events) options=' --lines --past --json' ;;
        inputs) options=' --json' ;;
        outputs) options=' --json --force'; words="set high low on off" ;;
        beat) options=' --ready --status --stopping' ;;
        watchdog) options=' --json' ;;
        values) options=' --json' ;;
        publish) options=' --for --unit' ;;
        reasons) options=' --json' ;;
        reboot) options=' --in --cancel' ;;
        poweroff) options=' --in --cancel' ;;
        quit) options=' --wait' ;;
        check) files=1 ;;
        new) options=' --lang' ;;
        key) options=' --show --set --force' ;;
        help) words="status start stop restart once pause cont signal reload log events inputs outputs beat watchdog values publish reasons reboot poweroff renew quit check new key help version completion keys" ;;
        completion) words="bash zsh fish" ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--run-dir --timeout --help --version$options" -- "$word")
    elif [[ $files ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}

complete -F _multusctl multusctl
