package storconcli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"quorate/internal/contract"
)

func newTestRoot() *cobra.Command {
	root := newRoot(&session{env: Env{Stdout: io.Discard, Stderr: io.Discard}})
	root.InitDefaultCompletionCmd("completion")
	return root
}

// ownFlags of all subcommands are additions to the contract.
var ownFlags = []string{"--output", "--request-timeout", "--version", "--help"}

// ownCommands are additions, for the replicas of Quorate.
var ownCommands = []string{"cluster", "node-operations", "safekeeper-gone"}

// ownFlagsOfSome are additions too.
var ownFlagsOfSome = []string{"--concurrent"}

// TestContractSubcommands ticks a subcommand that has exactly its flags, the right
// ones required, and that the scripts in testdata run successfully with each of
// them; the flags
// of all subcommands have tests of their own.
func TestContractSubcommands(t *testing.T) {
	root, ran := newTestRoot(), succeeded(t)
	var names []string
	for _, row := range contract.Rows(contract.Subcommand) {
		names = append(names, row.Name)
		t.Run(row.Name, func(t *testing.T) {
			if strings.HasPrefix(row.Name, "--") {
				t.Skip("in a test of its own")
			}
			cmd, _, err := root.Find([]string{row.Name})
			if err != nil || cmd == root {
				t.Fatalf("no such subcommand: %v", err)
			}
			want := slices.Sorted(slices.Values(row.Words("flags")))
			have := slices.DeleteFunc(flagsOf(cmd),
				func(f string) bool { return slices.Contains(ownFlagsOfSome, f) })
			if !slices.Equal(have, want) {
				t.Errorf("has the flags %v, want %v", have, want)
			}
			if ran[row.Name] == "" {
				t.Error("no script runs it")
			}
			given := strings.FieldsFunc(ran[row.Name],
				func(r rune) bool { return r == ' ' || r == '=' })
			for _, flag := range want {
				if !slices.Contains(given, strings.TrimSuffix(flag, "!")) {
					t.Errorf("no script runs it with %s", flag)
				}
			}
			row.Tick(t)
		})
	}
	for _, cmd := range root.Commands() {
		if !slices.Contains(append(append(names, ownCommands...), "completion", "help"),
			cmd.Name()) {
			t.Errorf("subcommand %s is not in the contract", cmd.Name())
		}
	}
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if name := "--" + f.Name; !slices.Contains(append(names, ownFlags...), name) {
			t.Errorf("flag %s is not in the contract", name)
		}
	})
}

// flagsOf are the flags of one subcommand; one that must be given has a `!`.
func flagsOf(cmd *cobra.Command) (have []string) {
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		name := "--" + f.Name
		if f.Annotations[cobra.BashCompOneRequiredFlag] != nil {
			name += "!"
		}
		have = append(have, name)
	})
	slices.Sort(have)
	return have
}

// succeeded is what the scripts run and what sends a request, by subcommand.
func succeeded(t *testing.T) map[string]string {
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
			if !strings.Contains(outcome, "\n> ") {
				continue
			}
			for word := range strings.FieldsSeq(strings.TrimPrefix(line, "run ")) {
				ran[word] += " " + line
			}
		}
	}
	return ran
}

func TestContractFlagsOfAllSubcommands(t *testing.T) {
	var header string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Get("Authorization")
		_, _ = io.WriteString(w, oneNode)
	}))
	t.Cleanup(server.Close)
	for _, args := range [][]string{
		{"--api", server.URL, "--jwt", "token", "nodes"},
		{"nodes", "--jwt=token", "--api=" + server.URL + "/"},
	} {
		header = ""
		if code, out, stderr := invoke(t, Env{}, args...); code != ExitDone ||
			header != "Bearer token" || !strings.Contains(out, "Offline") {
			t.Errorf("%v: exit %d, sends %q: %s", args, code, header, stderr)
		}
	}
	contract.Find(contract.Subcommand, "--api").Tick(t)
	contract.Find(contract.Subcommand, "--jwt").Tick(t)
}

// TestContractExitCodes ends the program in every way that has a code.
func TestContractExitCodes(t *testing.T) {
	url := answering(t, oneNode)
	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	for name, args := range map[string][]string{
		"done":                      {"--api", url, "nodes"},
		"--help":                    {"--help"},
		"refused by the controller": {"--api", refusing.URL, "nodes"},
		"controller out of reach":   {"--api", "http://127.0.0.1:1", "nodes"},
		"no arguments":              nil,
		"unknown subcommand":        {"--api", url, "nodez"},
		"missing flag":              {"--api", url, "node-delete"},
	} {
		t.Run(name, func(t *testing.T) {
			row := contract.Find(contract.Exit, "storcon_cli: "+name)
			if code, _, stderr := invoke(t, Env{},
				args...); strconv.Itoa(code) != row.Cell("code") {
				t.Errorf("exits with %d, want %s: %s", code, row.Cell("code"), stderr)
			}
			row.Tick(t)
		})
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
		if got := complement(t, append([]string{"__complete"}, strings.Split(typed,
			" ")...)); !strings.Contains(strings.ReplaceAll(got, "\t", "\n"), want) {
			t.Errorf("behind %q are offered %s, not %s", typed, got, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := complement(t,
			[]string{"completion", shell}); !strings.Contains(got, "storcon_cli") {
			t.Errorf("completion for %s is %q", shell, got)
		}
	}
}

// complement runs the program without a controller and returns its output.
func complement(t *testing.T, args []string) string {
	t.Helper()
	var out strings.Builder
	if code := Run(t.Context(),
		Env{Args: args, Stdout: &out, Stderr: io.Discard}); code != ExitDone {
		t.Errorf("%v exits with %d", args, code)
	}
	return out.String()
}
