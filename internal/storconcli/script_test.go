package storconcli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what was printed into the scripts")

// A script in testdata is a sequence of blocks:
//
//	always METHOD PATH [STATUS]   an answer of the controller in the whole script,
//	BODY                          up to the next empty line
//
//	once METHOD PATH [STATUS]     the same for one request of the next run, before
//	BODY                          what is always answered
//
//	run ARGS                      single quotes keep words together
//	----
//	what was requested, printed to stderr and stdout, and the exit code
//	====
//
// Requests that are not GET and not in the script are answered with 200 null.
type script struct {
	always map[string]reply
	once   map[string][]reply
	out    bytes.Buffer
}

type reply struct {
	status int
	body   string
}

func scripts(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	return files
}

func TestSubcommandsSendAndPrintWhatTheScriptsSay(t *testing.T) {
	for _, file := range scripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := script{always: map[string]reply{}, once: map[string][]reply{}}
			s.play(t, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
			if *update {
				if err := os.WriteFile(file, s.out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got := s.out.String(); got != string(text) {
				t.Errorf("%s differs, got\n%s", file, got)
			}
		})
	}
}

// play carries out the script and writes it again, with what came out.
func (s *script) play(t *testing.T, lines []string) {
	for i := 0; i < len(lines); i++ {
		words := strings.Fields(lines[i])
		fmt.Fprintln(&s.out, lines[i])
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0] == "always", words[0] == "once":
			r := reply{status: http.StatusOK}
			if len(words) > 3 {
				r.status, _ = strconv.Atoi(words[3])
			}
			for i++; i < len(lines) && lines[i] != ""; i++ {
				r.body += lines[i] + "\n"
				fmt.Fprintln(&s.out, lines[i])
			}
			fmt.Fprintln(&s.out)
			key := words[1] + " " + words[2]
			if words[0] == "always" {
				s.always[key] = r
			} else {
				s.once[key] = append(s.once[key], r)
			}
		case words[0] == "run":
			fmt.Fprintf(&s.out, "----\n%s====\n", s.run(arguments(lines[i])))
			if i+1 < len(lines) && lines[i+1] == "----" { // what came out last time
				for i++; i < len(lines) && lines[i] != "===="; i++ {
				}
			}
		default:
			t.Fatalf("what is %q?", lines[i])
		}
	}
}

// arguments splits a line at blanks that are not in single quotes.
func arguments(line string) (args []string) {
	quoted := false
	for word := range strings.FieldsFuncSeq(strings.TrimPrefix(line, "run"), func(r rune) bool {
		if r == '\'' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	}) {
		args = append(args, strings.ReplaceAll(word, "'", ""))
	}
	return args
}

// run runs the program against the scripted controller.
func (s *script) run(args []string) string {
	var mu sync.Mutex
	var requests, stdout, stderr bytes.Buffer
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&requests, "> %s %s", r.Method, r.URL.RequestURI())
		if len(body) > 0 {
			fmt.Fprintf(&requests, " %s", body)
		}
		if token := r.Header.Get("Authorization"); token != "" {
			fmt.Fprintf(&requests, " (%s)", token)
		}
		fmt.Fprintln(&requests)
		answer := s.answer(r.Method + " " + r.URL.RequestURI())
		w.WriteHeader(answer.status)
		_, _ = io.WriteString(w, answer.body)
	}))
	defer server.Close()
	if len(args) > 0 && args[0] != "--api" && args[0] != "bare" {
		args = append([]string{"--api", server.URL}, args...)
	} else if len(args) > 0 && args[0] == "bare" {
		args = args[1:]
	}
	env := Env{
		Args: args, Version: "1.2.3", Stdout: &stdout, Stderr: &stderr,
		WatchEvery: time.Millisecond, PollEvery: time.Millisecond,
	}
	code := Run(context.Background(), env)
	clear(s.once)
	var out strings.Builder
	out.Write(requests.Bytes())
	for line := range strings.Lines(stderr.String()) {
		fmt.Fprintf(&out, "! %s\n", strings.TrimSuffix(line, "\n"))
	}
	out.Write(stdout.Bytes())
	fmt.Fprintf(&out, "exit %d\n", code)
	return strings.ReplaceAll(out.String(), server.URL, "http://controller")
}

func (s *script) answer(key string) reply {
	if queue := s.once[key]; len(queue) > 0 {
		s.once[key] = queue[1:]
		return queue[0]
	}
	if r, ok := s.always[key]; ok {
		return r
	}
	if strings.HasPrefix(key, "GET") {
		return reply{http.StatusNotFound, `{"msg":"NotFound: not in the script"}`}
	}
	return reply{http.StatusOK, "null"}
}
