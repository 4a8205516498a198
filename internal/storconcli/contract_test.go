package storconcli

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// contract lists every subcommand of storcon_cli with its flags; a flag that must
// be given has a `!`.
const contract = `
node-register --node-id! --listen-pg-addr! --listen-pg-port! --listen-grpc-addr --listen-grpc-port --listen-http-addr! --listen-http-port! --listen-https-port --availability-zone-id!
node-configure --node-id! --availability --scheduling
node-delete --node-id!
node-start-delete --node-id! --force
node-cancel-delete --node-id! --timeout!
node-delete-tombstone --node-id!
node-tombstones
nodes
node-drop --node-id! --unclean
tenant-policy --tenant-id! --placement --scheduling
tenants
tenant-create --tenant-id!
tenant-delete --tenant-id!
tenant-shard-split --tenant-id! --shard-count! --stripe-size
tenant-shard-migrate --tenant-shard-id! --node! --prewarm --override-scheduler
tenant-shard-watch --tenant-shard-id!
tenant-shard-migrate-secondary --tenant-shard-id! --node!
tenant-shard-cancel-reconcile --tenant-shard-id!
set-tenant-config --tenant-id! --config!
patch-tenant-config --tenant-id! --config!
tenant-set-time-based-eviction --tenant-id! --period! --threshold!
tenant-describe --tenant-id!
tenant-set-preferred-az --tenant-id! --preferred-az
tenant-drop --tenant-id! --unclean
bulk-migrate --nodes --concurrency --max-shards --dry-run
start-drain --node-id!
cancel-drain --node-id! --timeout!
start-fill --node-id!
cancel-fill --node-id! --timeout!
safekeepers
safekeeper-scheduling --node-id! --scheduling-policy!
download-heatmap-layers --tenant-shard-id! --timeline-id! --concurrency
timeline-locate --tenant-id! --timeline-id!
timeline-safekeeper-migrate --tenant-id! --timeline-id! --new-sk-set!
timeline-safekeeper-migrate-abort --tenant-id! --timeline-id!
`

// globalFlags go before and behind the subcommand. The last two are additions.
var globalFlags = []string{"--api", "--jwt", "--ssl-ca-file", "--output", "--request-timeout"}

func newTestRoot() *cobra.Command {
	root := newRoot(&session{env: Env{Stdout: io.Discard, Stderr: io.Discard}})
	root.InitDefaultCompletionCmd("completion")
	return root
}

func rows() (all [][]string) {
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		all = append(all, strings.Fields(line))
	}
	return all
}

func TestEverySubcommandAndFlagOfTheContractExists(t *testing.T) {
	root := newTestRoot()
	var names []string
	flags := 0
	for _, row := range rows() {
		names = append(names, row[0])
		cmd, _, err := root.Find(row[:1])
		if err != nil || cmd == root {
			t.Errorf("no subcommand %s: %v", row[0], err)
			continue
		}
		var have []string
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			name := "--" + f.Name
			if f.Annotations[cobra.BashCompOneRequiredFlag] != nil {
				name += "!"
			}
			have = append(have, name)
		})
		want := slices.Sorted(slices.Values(row[1:]))
		slices.Sort(have)
		if !slices.Equal(have, want) {
			t.Errorf("%s has the flags %v, want %v", row[0], have, want)
		}
		flags += len(want)
	}
	for _, cmd := range root.Commands() {
		if !slices.Contains(append(names, "completion", "help"), cmd.Name()) {
			t.Errorf("subcommand %s is not in the contract", cmd.Name())
		}
	}
	for _, name := range globalFlags {
		if root.PersistentFlags().Lookup(strings.TrimPrefix(name, "--")) == nil {
			t.Errorf("no global flag %s", name)
		}
	}
	t.Logf("contract: %d of %d subcommands with %d flags, %d global flags", len(names), len(rows()), flags, len(globalFlags))
}

// TestEverySubcommandHasAScript fails for a subcommand, or a flag of it, that no
// script in testdata runs successfully.
func TestEverySubcommandHasAScript(t *testing.T) {
	ran := map[string]string{}
	for _, file := range scripts(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for block := range strings.SplitSeq(string(text), "\nrun ") {
			line, rest, _ := strings.Cut(block, "\n")
			_, outcome, _ := strings.Cut(rest, "----")
			outcome, _, _ = strings.Cut(outcome, "====")
			for _, row := range rows() {
				if slices.Contains(strings.Fields(strings.TrimPrefix(line, "run ")), row[0]) && strings.Contains(outcome, "\n> ") {
					ran[row[0]] += " " + line
				}
			}
		}
	}
	for _, row := range rows() {
		if ran[row[0]] == "" {
			t.Errorf("no script runs %s", row[0])
			continue
		}
		given := strings.FieldsFunc(ran[row[0]], func(r rune) bool { return r == ' ' || r == '=' })
		for _, flag := range row[1:] {
			if !slices.Contains(given, strings.TrimSuffix(flag, "!")) {
				t.Errorf("no script runs %s with %s", row[0], flag)
			}
		}
	}
}

func TestShellsAreOfferedCommandsFlagsAndPolicies(t *testing.T) {
	for typed, want := range map[string]string{
		"tenant-shard-m": "tenant-shard-migrate\n",
		"node-configure --node-id 1 --scheduling ": "pause_for_restart\n",
		"tenant-policy --scheduling ":              "essential\n",
		"safekeeper-scheduling --":                 "--scheduling-policy",
		"nodes --output ":                          "yaml\n",
	} {
		if got := complement(t, append([]string{"__complete"}, strings.Split(typed, " ")...)); !strings.Contains(strings.ReplaceAll(got, "\t", "\n"), want) {
			t.Errorf("behind %q are offered %s, not %s", typed, got, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := complement(t, []string{"completion", shell}); !strings.Contains(got, "storcon_cli") {
			t.Errorf("completion for %s is %q", shell, got)
		}
	}
}

// complement runs the program without a controller and returns its output.
func complement(t *testing.T, args []string) string {
	t.Helper()
	var out strings.Builder
	if code := Run(t.Context(), Env{Args: args, Stdout: &out, Stderr: io.Discard}); code != ExitDone {
		t.Errorf("%v exits with %d", args, code)
	}
	return out.String()
}
