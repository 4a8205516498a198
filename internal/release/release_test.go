package release

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// temporary is the directory of the release that the tests share.
var temporary string

// made makes a release of HEAD, once.
var made = sync.OnceValue(func() (m struct {
	source Source
	out    string
	err    error
},
) {
	m.out = filepath.Join(temporary, "out")
	ctx := context.Background()
	if m.source, m.err = Checkout(ctx, "../..", filepath.Join(temporary, "source")); m.err == nil {
		m.err = m.source.Make(ctx, m.out)
	}
	return m
})

// release returns the release that the tests share.
func release(t *testing.T) (source Source, out string) {
	t.Helper()
	m := made()
	if m.err != nil {
		t.Fatal(m.err)
	}
	return m.source, m.out
}

func TestMain(m *testing.M) {
	var err error
	if temporary, err = os.MkdirTemp("", "quorate-release"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(temporary)
	os.Exit(code)
}

// must returns what a program prints.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

func only(t *testing.T, pattern string) string {
	t.Helper()
	_, out := release(t)
	found, err := filepath.Glob(filepath.Join(out, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s matches %v, %v", pattern, found, err)
	}
	return found[0]
}

// TestTheSameCommitGivesTheSameBytes makes the release again, in another directory.
func TestTheSameCommitGivesTheSameBytes(t *testing.T) {
	source, before := release(t)
	dir := t.TempDir()
	again, err := Checkout(t.Context(), source.Dir, filepath.Join(dir, "elsewhere", "source"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := again.Make(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(filepath.Join(before, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("%v\n%s\nand\n%s", err, first, second)
	}
	for _, part := range []string{
		"linux-amd64/storage_controller", "linux-arm64/storcon_cli", ".deb", ".rpm", ".tgz",
		"quorate.cdx.json", "image/index.json",
	} {
		if !bytes.Contains(first, []byte(part+"\n")) {
			t.Errorf("no %s in\n%s", part, first)
		}
	}
}

func TestBinariesAreStaticAndSayWhatTheyAre(t *testing.T) {
	source, out := release(t)
	for _, arch := range Arches {
		for _, command := range Commands {
			f, err := elf.Open(Binary(out, arch, command))
			if err != nil {
				t.Fatal(err)
			}
			libraries, err := f.ImportedLibraries()
			want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
			if err != nil || len(libraries) > 0 || f.Machine != want {
				t.Errorf("%s %s: %v, %v, %v", arch, command, f.Machine, libraries, err)
			}
			_ = f.Close()
		}
	}
	got := must(t, Binary(out, "amd64", "storage_controller"), "--version")
	date := source.Date.Format(time.RFC3339)
	if !strings.HasPrefix(got, "storage_controller v") ||
		!strings.Contains(got, source.Commit) || !strings.Contains(got, date) ||
		strings.Contains(got, "dirty") {
		t.Errorf("--version prints %q, of commit %s of %s", got, source.Commit, date)
	}
}

func TestTheBillOfMaterialsNamesEveryModule(t *testing.T) {
	source, _ := release(t)
	f, err := os.Open(only(t, "quorate.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(f, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range *bom.Components {
		names = append(names, c.Name)
		if c.Version == "" || !strings.HasPrefix(c.PackageURL, "pkg:golang/") {
			t.Errorf("%+v", c)
		}
	}
	for _, name := range []string{"github.com/hashicorp/raft", "go.etcd.io/bbolt", "std"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not among %d parts", name, len(names))
		}
	}
	if bom.Metadata.Component.Version != source.Version {
		t.Errorf("of %+v", bom.Metadata.Component)
	}
}

// image returns the image of an architecture from the layout.
func image(t *testing.T, arch string) v1.Image {
	t.Helper()
	_, out := release(t)
	index, err := layout.ImageIndexFromPath(filepath.Join(out, "image"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform.Architecture == arch && m.Platform.OS == "linux" {
			img, err := index.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return img
		}
	}
	t.Fatalf("no image for %s in %+v", arch, manifest)
	return nil
}

// unpack puts the files of an image into a directory, with their owners.
func unpack(t *testing.T, img v1.Image) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for content := tar.NewReader(r); ; {
			h, err := content.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(root, filepath.Clean("/"+h.Name))
			if h.Typeflag == tar.TypeDir {
				err = os.MkdirAll(path, os.FileMode(h.Mode))
			} else {
				var body []byte
				if body, err = io.ReadAll(content); err == nil {
					err = os.WriteFile(path, body, os.FileMode(h.Mode))
				}
			}
			if os.Getuid() == 0 {
				err = errors.Join(err, os.Chown(path, h.Uid, h.Gid))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = r.Close()
	}
	return root
}

func TestImagesSayWhatTheyAre(t *testing.T) {
	source, _ := release(t)
	for _, arch := range Arches {
		file, err := image(t, arch).ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c := file.Config
		if file.Architecture != arch || c.User != "65532:65532" || c.StopSignal != "SIGTERM" ||
			c.Labels["org.opencontainers.image.revision"] != source.Commit ||
			!file.Created.Equal(source.Date) {
			t.Errorf("%s: %+v", arch, file)
		}
	}
}

// TestTheImageRunsAsNobodyOnAReadOnlyRoot starts what the image starts: with its files
// only, as its user, with nothing to write but the volume.
func TestTheImageRunsAsNobodyOnAReadOnlyRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can change the root of a process")
	}
	needs(t, "unshare")
	img := image(t, "amd64")
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	root, port := unpack(t, img), freePort(t)
	script := `set -e
mount --bind "$0" "$0"
mount -t tmpfs -o uid=65532,gid=65532,mode=0700 state "$0/var/lib/quorate"
mount -o remount,bind,ro "$0"
if touch "$0/etc/written" 2>/dev/null; then echo the root can be written; exit 1; fi
root=$0; user=$1; shift
exec chroot --userspec="$user" "$root" "$@"`
	args := append([]string{"--mount", "sh", "-c", script, root, file.Config.User},
		file.Config.Entrypoint...)
	args = append(args, "--dev", "--listen=127.0.0.1:"+port, "--data-dir=/var/lib/quorate/state")
	p := start(t, exec.Command("unshare", args...))
	p.untilStatus("http://127.0.0.1:"+port+"/ready", http.StatusOK)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil || !bytes.Contains(status, []byte("Uid:\t65532\t65532\t65532\t65532\n")) {
		t.Errorf("%v\n%s", err, status)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exits with %d\n%s", code, p.output.String())
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// process is a program that a test has started, and that ends with it.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%v printed\n%s", cmd.Args[0], p.output.String())
		}
	})
	return p
}

// stop ends it in order, and returns its code.
func (p *process) stop() int {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// untilStatus asks an address until it answers with a status.
func (p *process) untilStatus(url string, want int) {
	p.t.Helper()
	last := 0
	until(p.t, fmt.Sprintf("%d of %s", want, url), func() bool {
		select {
		case <-p.ended:
			p.t.Fatal("the process has ended")
		default:
		}
		last = statusOf(url)
		return last == want
	})
}

func statusOf(url string) int {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); <-time.After(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within a minute", what)
		}
	}
}

var installed = []string{
	"/usr/bin/storage_controller", "/usr/bin/storcon_cli", "/etc/quorate/serving",
	"/etc/quorate/cluster", "/etc/quorate/peers", "/etc/quorate/secrets",
	"/usr/lib/systemd/system/storage_controller.service", "/usr/lib/sysusers.d/quorate.conf",
}

func TestPackagesHaveWhatAHostNeeds(t *testing.T) {
	needs(t, "dpkg-deb")
	list := must(t, "dpkg-deb", "--contents", only(t, "*_amd64.deb"))
	for _, path := range installed {
		if !strings.Contains(list, " ."+path+"\n") {
			t.Errorf("no %s in\n%s", path, list)
		}
	}
	control := must(t, "dpkg-deb", "--info", only(t, "*_arm64.deb"), "conffiles")
	if strings.Count(control, "/etc/quorate/") != 4 {
		t.Errorf("an upgrade keeps\n%s", control)
	}
	needs(t, "rpm")
	list = must(t, "rpm", "-qpl", only(t, "*x86_64.rpm"))
	for _, path := range installed {
		if !strings.Contains(list, path+"\n") {
			t.Errorf("no %s in\n%s", path, list)
		}
	}
	kept := must(t, "rpm", "-qpc", only(t, "*aarch64.rpm"))
	if strings.Count(kept, "/etc/quorate/") != 4 {
		t.Errorf("an upgrade keeps\n%s", kept)
	}
}

// worstExposure bounds what systemd-analyze makes of the unit: 0 is best, 10 is worst.
const worstExposure = 1.5

func TestTheUnitIsValidAndConfined(t *testing.T) {
	needs(t, "dpkg-deb")
	needs(t, "systemd-analyze")
	root := t.TempDir()
	must(t, "dpkg-deb", "--extract", only(t, "*_amd64.deb"), root)
	unit, err := os.ReadFile(filepath.Join(root, installed[6]))
	if err != nil {
		t.Fatal(err)
	}
	// It is verified here, where its program is elsewhere.
	here := filepath.Join(t.TempDir(), "storage_controller.service")
	text := strings.ReplaceAll(string(unit), "/usr/bin/storage_controller",
		filepath.Join(root, "usr/bin/storage_controller"))
	if err := os.WriteFile(here, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "systemd-analyze", "verify", "--man=no", here); out != "" {
		t.Errorf("verify: %s", out)
	}
	out := must(t, "systemd-analyze", "security", "--offline=true", "--no-pager", here)
	found := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no level in\n%s", out)
	}
	level, err := strconv.ParseFloat(found[1], 64)
	if err != nil || level > worstExposure {
		t.Errorf("an exposure of %s, more than %v\n%s", found[1], worstExposure, out)
	}
	t.Logf("exposure %s", found[1])
}

// TestTheLayoutIsAnIndexOfAllArchitectures: a layout is read by others.
func TestTheLayoutIsAnIndexOfAllArchitectures(t *testing.T) {
	raw, err := os.ReadFile(only(t, "image/index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		SchemaVersion int
		Manifests     []struct {
			Platform struct{ Architecture, OS string }
		}
	}
	if err := json.Unmarshal(raw, &index); err != nil || index.SchemaVersion != 2 ||
		len(index.Manifests) != len(Arches) {
		t.Errorf("%v: %s", err, raw)
	}
}
