package release

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// rendered are the objects of a chart, decoded into the types of Kubernetes.
type rendered struct {
	pods     map[string]*apps.StatefulSet
	services map[string]*core.Service
	rules    map[string]*monitoring.PrometheusRule
	kinds    []string
}

func render(t *testing.T, values map[string]any) (rendered, error) {
	t.Helper()
	r := rendered{
		pods: map[string]*apps.StatefulSet{}, services: map[string]*core.Service{},
		rules: map[string]*monitoring.PrometheusRule{},
	}
	c, err := loader.LoadDir("chart")
	if err != nil {
		t.Fatal(err)
	}
	all, err := util.ToRenderValues(c, values,
		common.ReleaseOptions{Name: "quorate", Namespace: "neon", IsInstall: true}, nil)
	if err != nil {
		return r, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return r, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for text := range strings.SplitSeq(files[name], "\n---\n") {
			if strings.HasSuffix(name, ".tpl") || strings.TrimSpace(text) == "" {
				continue
			}
			if err := r.add([]byte(text)); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
		}
	}
	return r, nil
}

// add decodes one object. A field that its type does not have is an error.
func (r *rendered) add(text []byte) error {
	var head struct{ Kind, APIVersion string }
	if err := yaml.Unmarshal(text, &head); err != nil {
		return err
	}
	r.kinds = append(r.kinds, head.Kind)
	strict := func(object any) error { return yaml.UnmarshalStrict(text, object) }
	switch head.APIVersion + " " + head.Kind {
	case "apps/v1 StatefulSet":
		var o apps.StatefulSet
		err := strict(&o)
		r.pods[o.Name] = &o
		return err
	case "v1 Service":
		var o core.Service
		err := strict(&o)
		r.services[o.Name] = &o
		return err
	case "v1 ServiceAccount":
		return strict(new(core.ServiceAccount))
	case "policy/v1 PodDisruptionBudget":
		return strict(new(policy.PodDisruptionBudget))
	case "networking.k8s.io/v1 NetworkPolicy":
		return strict(new(networking.NetworkPolicy))
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return strict(new(monitoring.ServiceMonitor))
	case "monitoring.coreos.com/v1 PrometheusRule":
		var o monitoring.PrometheusRule
		err := strict(&o)
		r.rules[o.Name] = &o
		return err
	}
	return os.ErrInvalid
}

func TestTheChartRendersWhatKubernetesTakes(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"development": {"dev": true, "insecurePeers": true, "replicas": 1},
		"secured": {
			"replicas": 5, "newcomers": 2, "tokensSecret": "tokens", "peersSecret": "peers",
			"httpsSecret": "https", "controlPlaneURL": "https://control-plane/",
			"serviceMonitor":   map[string]any{"enabled": true},
			"prometheusRule":   map[string]any{"enabled": true},
			"extraArgs":        []any{"--timelines-onto-safekeepers"},
			"podAnnotations":   map[string]any{"a": "b"},
			"nodeSelector":     map[string]any{"disk": "fast"},
			"imagePullSecrets": []any{map[string]any{"name": "pull"}},
			"storage":          map[string]any{"className": "fast"},
			"tolerations":      []any{map[string]any{"key": "k", "operator": "Exists"}},
			"networkPolicy": map[string]any{"clientPeers": []any{
				map[string]any{"ipBlock": map[string]any{"cidr": "10.0.0.0/8"}},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := render(t, values)
			if err != nil {
				t.Fatal(err)
			}
			pods := r.pods["quorate"].Spec
			if pods.PodManagementPolicy != apps.ParallelPodManagement ||
				!r.services["quorate-replicas"].Spec.PublishNotReadyAddresses ||
				pods.ServiceName != "quorate-replicas" ||
				int(*pods.Replicas) != values["replicas"].(int) ||
				!*pods.Template.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%+v", pods)
			}
			if has := slices.Contains(r.kinds, "PodDisruptionBudget"); has != (*pods.Replicas > 1) {
				t.Errorf("kinds %v", r.kinds)
			}
			more := r.pods["quorate-more"]
			if (more != nil) != (values["newcomers"] != nil) {
				t.Errorf("newcomers: %+v", more)
			}
			if more != nil && !slices.ContainsFunc(more.Spec.Template.Spec.Containers[0].Args,
				func(a string) bool { return strings.HasPrefix(a, "--join=quorate-0.quorate-replicas.") }) {
				t.Errorf("newcomers: %q", more.Spec.Template.Spec.Containers[0].Args)
			}
		})
	}
}

// TestTheChartRefusesWhatCannotWork, and says what to set.
func TestTheChartRefusesWhatCannotWork(t *testing.T) {
	for want, values := range map[string]map[string]any{
		"peersSecret is needed":     {"dev": true},
		"controlPlaneURL is needed": {"insecurePeers": true},
		"tokensSecret is needed":    {"insecurePeers": true, "controlPlaneURL": "http://a/"},
		"replicas":                  {"dev": true, "insecurePeers": true, "replicas": 2},
	} {
		if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", values, err, want)
		}
	}
}

// alerts are the series that the rules of the chart read.
func alerts(t *testing.T) (series []string) {
	t.Helper()
	r, err := render(t, map[string]any{
		"dev": true, "insecurePeers": true, "prometheusRule": map[string]any{"enabled": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`storage_controller_[a-z_]+`)
	for _, rule := range r.rules["quorate"].Spec.Groups[0].Rules {
		found := name.FindAllString(rule.Expr.String(), -1)
		if len(found) == 0 {
			t.Errorf("%s reads no series: %s", rule.Alert, rule.Expr.String())
		}
		series = append(series, found...)
	}
	return series
}

func TestTheComposeFileIsUnderstood(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("install", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	type service struct {
		Image, Hostname, User, Restart string
		Command, Ports, Volumes        []string
		ReadOnly                       bool     `json:"read_only"`
		CapDrop                        []string `json:"cap_drop"`
		SecurityOpt                    []string `json:"security_opt"`
		StopGracePeriod                string   `json:"stop_grace_period"`
	}
	var file struct {
		Name     string
		Replica  service `json:"x-replica"`
		Services map[string]service
		Volumes  map[string]struct{}
	}
	if err := yaml.UnmarshalStrict(raw, &file); err != nil {
		t.Fatal(err)
	}
	image, err := image(t, "amd64").ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		volume, path, _ := strings.Cut(s.Volumes[0], ":")
		_, declared := file.Volumes[volume]
		_, known := image.Config.Volumes[path]
		if s.User != image.Config.User || !s.ReadOnly || !declared || !known ||
			s.Hostname != name || !slices.Contains(s.Command, "--server-id="+name) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if len(file.Services) != 3 {
		t.Errorf("%d services", len(file.Services))
	}
}
