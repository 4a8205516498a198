package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
)

// pods runs the pods of a rendered chart as processes. Each has an address of the
// loopback interface and a name that leads to it, in a hosts file which they share.
type pods struct {
	t         *testing.T
	container core.Container
	dir       string
	binary    string
	secrets   []string // NAME=value
	addresses map[string]string
	running   map[string]*process
}

const domain = "quorate-replicas.neon.svc.cluster.local"

// names writes the hosts file. Processes see it in place of that of the machine.
func (p *pods) names() {
	p.t.Helper()
	text := "127.0.0.1 localhost\n"
	for name, ip := range p.addresses {
		text += fmt.Sprintf("%s %s.%s\n", ip, name, domain)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "hosts"), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// start runs the container of a pod with its arguments, as the kubelet would.
func (p *pods) start(name string) {
	p.t.Helper()
	env := map[string]string{"POD_NAME": name, "POD_IP": p.addresses[name]}
	script := `mount --bind "$0" /etc/hosts && exec "$@"`
	args := []string{
		"--mount", "sh", "-c", script, filepath.Join(p.dir, "hosts"),
		p.binary,
	}
	for _, a := range p.container.Args {
		for k, v := range env {
			a = strings.ReplaceAll(a, "$("+k+")", v)
		}
		args = append(args, strings.ReplaceAll(a, "/var/lib/quorate", filepath.Join(p.dir, name)))
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), p.secrets...)
	p.running[name] = start(p.t, cmd)
}

// probe does what the kubelet does for a probe of a pod, and reports its success.
func (p *pods) probe(name string, probe *core.Probe) bool {
	port := ""
	for _, c := range p.container.Ports {
		if c.Name == probe.HTTPGet.Port.StrVal {
			port = strconv.Itoa(int(c.ContainerPort))
		}
	}
	status := statusOf(strings.ToLower(string(probe.HTTPGet.Scheme)) + "://" + p.addresses[name] +
		":" + port + probe.HTTPGet.Path)
	return status >= 200 && status < 400
}

func (p *pods) untilProbed(what string, probe *core.Probe, names ...string) {
	p.t.Helper()
	for _, name := range names {
		until(p.t, what+" "+name, func() bool { return p.probe(name, probe) })
	}
}

// secrets is what the secret with the tokens holds.
func secrets(t *testing.T) []string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return []string{
		"PUBLIC_KEY=" + string(key), "PAGESERVER_JWT_TOKEN=a", "SAFEKEEPER_JWT_TOKEN=b",
		"CONTROL_PLANE_JWT_TOKEN=c",
	}
}

// TestTheChartRunsAndPodsMayComeBackElsewhere founds a cluster with the arguments of the
// chart, asks its probes, and has two pods one after the other come back with another
// address under their name. The series of the alerts are there.
func TestTheChartRunsAndPodsMayComeBackElsewhere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give processes their own names of hosts")
	}
	needs(t, "unshare")
	r, err := render(t, map[string]any{
		"insecurePeers": true, "tokensSecret": "tokens", "controlPlaneURL": "http://127.0.0.1:9/",
	})
	if err != nil {
		t.Fatal(err)
	}
	third := os.Getpid() % 250 // so that two runs on one machine do not meet
	ip := func(n int) string { return fmt.Sprintf("127.77.%d.%d", third, n) }
	_, out := release(t)
	p := &pods{
		binary: Binary(out, "amd64", "storage_controller"),
		t:      t, dir: t.TempDir(), secrets: secrets(t), running: map[string]*process{},
		container: r.pods["quorate"].Spec.Template.Spec.Containers[0],
		addresses: map[string]string{"quorate-0": ip(10), "quorate-1": ip(11)},
	}
	p.names()
	p.start("quorate-0")
	p.start("quorate-1")
	p.untilProbed("startup of", p.container.StartupProbe, "quorate-0", "quorate-1")
	if !p.probe("quorate-0", p.container.LivenessProbe) {
		t.Error("a pod that waits for the others would be restarted")
	}
	if p.probe("quorate-0", p.container.ReadinessProbe) {
		t.Error("a pod that waits for the others is ready")
	}
	p.addresses["quorate-2"] = ip(12)
	p.names()
	p.start("quorate-2")
	all := []string{"quorate-0", "quorate-1", "quorate-2"}
	p.untilProbed("readiness of", p.container.ReadinessProbe, all...)
	for i, name := range []string{"quorate-2", "quorate-0"} { // as a rolling update goes
		if code := p.running[name].stop(); code != 0 {
			t.Errorf("%s ends with %d", name, code)
		}
		p.addresses[name] = ip(20 + i)
		p.names()
		p.start(name)
		p.untilProbed("readiness of", p.container.ReadinessProbe, all...)
		p.untilMembers(all)
	}
	p.haveSeries(all, alerts(t))
}

// connected is the series of a member that is heard, or that is asked.
var connected = regexp.MustCompile(`(?m)^storage_controller_raft_member_connected\{.*\} 1$`)

// untilMembers waits until each pod hears every other one.
func (p *pods) untilMembers(names []string) {
	p.t.Helper()
	for _, name := range names {
		until(p.t, name+" hears all", func() bool {
			return len(connected.FindAllString(p.metrics(name), -1)) == len(names)
		})
	}
}

func (p *pods) metrics(name string) string {
	c := http.Client{Timeout: 5 * time.Second}
	resp, err := c.Get("http://" + p.addresses[name] + ":1234/metrics")
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	var text bytes.Buffer
	_, _ = io.Copy(&text, resp.Body)
	return text.String()
}

// haveSeries checks that what the alerts read is there: an alert on a series that does not
// exist never fires. Without certificates there is none of theirs.
func (p *pods) haveSeries(names, series []string) {
	p.t.Helper()
	var text string
	for _, name := range names {
		text += p.metrics(name)
	}
	for _, s := range series {
		if s != "storage_controller_certificate_expiry_seconds" && !strings.Contains(text, "\n"+s) {
			p.t.Errorf("no series %s", s)
		}
	}
	if len(series) < 5 {
		p.t.Errorf("only %v", series)
	}
}
