package metrics

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/fsm"
	"quorate/internal/contract"
)

var described = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

// TestContractMetricsThatAreRare ticks the metrics that only show after something
// has gone wrong: they are registered, with their labels.
func TestContractMetricsThatAreRare(t *testing.T) {
	reg := prometheus.NewRegistry()
	New(reg, fsm.NewStore().State)
	descs := make(chan *prometheus.Desc, 1000)
	reg.Describe(descs)
	close(descs)
	labels := map[string]string{}
	for d := range descs {
		if m := described.FindStringSubmatch(d.String()); m != nil {
			names := strings.Split(m[2], ",")
			slices.Sort(names)
			labels[m[1]] = strings.Join(names, " ")
		}
	}
	for _, row := range contract.Rows(contract.Metric) {
		if row.Cell("shown") != "rare" {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			got, ok := labels[row.Name]
			if !ok {
				t.Fatal("not registered")
			}
			if got != row.Cell("labels") {
				t.Errorf("its labels are %s, want %s", got, row.Cell("labels"))
			}
			row.Tick(t)
		})
	}
}
