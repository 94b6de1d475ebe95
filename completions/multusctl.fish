# Completion of multusctl. Generated: multusctl completion fish

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
            case --run-dir --timeout --lines --since --status --for --unit --in --lang
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
complete -c multusctl -l run-dir -r -a '(__fish_complete_directories)' -d 'talk to the daemon whose run directory is DIR, instead of /run/multusd'
complete -c multusctl -l timeout -x -d 'give up after TIME (such as 500ms, 10s, 5min); 10s, with --wait 60s'
complete -c multusctl -l help -d 'show help, of the command if there is one, and exit'
complete -c multusctl -l version -d 'show the version and exit'
complete -c multusctl -n 'not __multusctl_command' -a status -d 'Shows the daemon and every program, or the named programs'
complete -c multusctl -n '__multusctl_command status' -l json -d 'write JSON for programs'
complete -c multusctl -n '__multusctl_command status' -l watch -d 'stay and show every change; Ctrl-C ends'
complete -c multusctl -n '__multusctl_command status' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a start -d 'Runs programs and keeps them running'
complete -c multusctl -n '__multusctl_command start' -l wait -d 'return when it has happened, not when it is ordered'
complete -c multusctl -n '__multusctl_command start' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a stop -d 'Stops programs; they stay stopped until they are started'
complete -c multusctl -n '__multusctl_command stop' -l wait -d 'return when it has happened, not when it is ordered'
complete -c multusctl -n '__multusctl_command stop' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a restart -d 'Stops programs and starts them again'
complete -c multusctl -n '__multusctl_command restart' -l wait -d 'return when it has happened, not when it is ordered'
complete -c multusctl -n '__multusctl_command restart' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a once -d 'Runs programs once, without starting them again when they end'
complete -c multusctl -n '__multusctl_command once' -l wait -d 'return when it has happened, not when it is ordered'
complete -c multusctl -n '__multusctl_command once' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a pause -d 'Freezes programs (SIGSTOP); their outputs go to the safe level'
complete -c multusctl -n '__multusctl_command pause' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a cont -d 'Lets paused programs continue (SIGCONT)'
complete -c multusctl -n '__multusctl_command cont' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a signal -d 'Sends a signal to the main processes of programs'
complete -c multusctl -n '__multusctl_command signal' -a 'all reload (__multusctl_names) HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS'
complete -c multusctl -n 'not __multusctl_command' -a reload -d 'Reads the configuration again and applies what changed'
complete -c multusctl -n '__multusctl_command reload' -l dry-run -d 'only say what would change'
complete -c multusctl -n '__multusctl_command reload' -l wait -d 'return when it has happened, not when it is ordered'
complete -c multusctl -n 'not __multusctl_command' -a log -d 'Shows what programs write, wherever it is by now: the last lines of all, or of the named programs'
complete -c multusctl -n '__multusctl_command log' -l follow -d 'go on with what comes; Ctrl-C ends'
complete -c multusctl -n '__multusctl_command log' -l lines -x -d 'the last N; 100 unless --since says when'
complete -c multusctl -n '__multusctl_command log' -l since -x -d 'what is not older than TIME, such as 5min'
complete -c multusctl -n '__multusctl_command log' -l stdout -d 'only what went to standard output'
complete -c multusctl -n '__multusctl_command log' -l stderr -d 'only what went to standard error'
complete -c multusctl -n '__multusctl_command log' -l json -d 'write JSON for programs'
complete -c multusctl -n '__multusctl_command log' -l sync -d 'instead, return when everything that programs have written by now is on storage'
complete -c multusctl -n '__multusctl_command log' -l usage -d 'instead, show what each log has cost storage, today and in all'
complete -c multusctl -n '__multusctl_command log' -a 'all (__multusctl_names)'
complete -c multusctl -n 'not __multusctl_command' -a events -d 'Shows every change of state from now on; Ctrl-C ends'
complete -c multusctl -n '__multusctl_command events' -l lines -x -d 'first the last N, at most 256'
complete -c multusctl -n '__multusctl_command events' -l past -d 'only what has happened by now'
complete -c multusctl -n '__multusctl_command events' -l json -d 'write JSON for programs'
complete -c multusctl -n 'not __multusctl_command' -a inputs -d 'Shows every input: its level, how often and when it last changed'
complete -c multusctl -n '__multusctl_command inputs' -l json -d 'write JSON for programs'
complete -c multusctl -n 'not __multusctl_command' -a outputs -d 'Shows every output: its level and whose that is; or sets one'
complete -c multusctl -n '__multusctl_command outputs' -l json -d 'write JSON for programs'
complete -c multusctl -n '__multusctl_command outputs' -l force -d 'do it even while its program runs'
complete -c multusctl -n '__multusctl_command outputs' -a 'set high low on off'
complete -c multusctl -n 'not __multusctl_command' -a beat -d 'Says that the program that calls it makes progress: for scripts that multusd runs'
complete -c multusctl -n '__multusctl_command beat' -l ready -d 'say that the program serves (ready = notify)'
complete -c multusctl -n '__multusctl_command beat' -l status -x -d 'say TEXT of the program, which status shows'
complete -c multusctl -n '__multusctl_command beat' -l stopping -d 'say that the program is about to end'
complete -c multusctl -n 'not __multusctl_command' -a watchdog -d 'Shows the watchdogs, whether they are fed, and the temperature'
complete -c multusctl -n '__multusctl_command watchdog' -l json -d 'write JSON for programs'
complete -c multusctl -n 'not __multusctl_command' -a values -d 'Shows the values that programs publish for others, and how old they are'
complete -c multusctl -n '__multusctl_command values' -l json -d 'write JSON for programs'
complete -c multusctl -n 'not __multusctl_command' -a publish -d 'Publishes a value for programs that look for it, such as tank=12.5 or tank=unknown'
complete -c multusctl -n '__multusctl_command publish' -l for -x -d 'it is to be believed for TIME, such as 30s; else until it changes'
complete -c multusctl -n '__multusctl_command publish' -l unit -x -d 'what it is measured in'
complete -c multusctl -n 'not __multusctl_command' -a reasons -d 'Shows the last 16 boots of the machine, how each ended and why, the newest first'
complete -c multusctl -n '__multusctl_command reasons' -l json -d 'write JSON for programs'
complete -c multusctl -n 'not __multusctl_command' -a reboot -d 'Stops everything in order and reboots the machine'
complete -c multusctl -n '__multusctl_command reboot' -l in -x -d 'do it after TIME, such as 5min'
complete -c multusctl -n '__multusctl_command reboot' -l cancel -d 'take a pending reboot or poweroff back'
complete -c multusctl -n 'not __multusctl_command' -a poweroff -d 'Stops everything in order and powers the machine off'
complete -c multusctl -n '__multusctl_command poweroff' -l in -x -d 'do it after TIME, such as 5min'
complete -c multusctl -n '__multusctl_command poweroff' -l cancel -d 'take a pending reboot or poweroff back'
complete -c multusctl -n 'not __multusctl_command' -a renew -d 'Goes on as the multusd that is on storage now, another version maybe; programs run on'
complete -c multusctl -n 'not __multusctl_command' -a quit -d 'Stops everything in order and ends the daemon'
complete -c multusctl -n '__multusctl_command quit' -l wait -d 'return when it has happened, not when it is ordered'
complete -c multusctl -n 'not __multusctl_command' -a check -d 'Reads a configuration file and reports all its errors; needs no daemon'
complete -c multusctl -n '__multusctl_command check' -F
complete -c multusctl -n 'not __multusctl_command' -a new -d 'Writes a program for multusd to begin with, its section and a test that breaks it, into the directory NAME'
complete -c multusctl -n '__multusctl_command new' -l lang -x -d 'rust, c, python or sh'
complete -c multusctl -n 'not __multusctl_command' -a key -d 'Makes a key that this machine shares with another, in /etc/multusd/keys'
complete -c multusctl -n '__multusctl_command key' -l show -d 'print the key, to be brought to the other machine'
complete -c multusctl -n '__multusctl_command key' -l set -d 'take the key from standard input instead of making one'
complete -c multusctl -n '__multusctl_command key' -l force -d 'replace the key that is there'
complete -c multusctl -n 'not __multusctl_command' -a help -d 'Explains a command or a configuration key; needs no daemon'
complete -c multusctl -n '__multusctl_command help' -a 'status start stop restart once pause cont signal reload log events inputs outputs beat watchdog values publish reasons reboot poweroff renew quit check new key help version completion keys'
complete -c multusctl -n 'not __multusctl_command' -a version -d 'Shows the version; needs no daemon'
complete -c multusctl -n 'not __multusctl_command' -a completion -d 'Writes the completion script for a shell; needs no daemon'
complete -c multusctl -n '__multusctl_command completion' -a 'bash zsh fish'
