package cluster

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answerWith sets how every server answers, given its number. It is called before anything
// is asked.
func answerWith(tr *trio, answer func(i int, b, question []byte) []byte) {
	for i, nd := range tr.nodes {
		nd.questions.answerer = func(b, question []byte) []byte { return answer(i, b, question) }
	}
}

// answerCounts has every server answer how often its machine has a row.
func answerCounts(tr *trio) {
	answerWith(tr, func(i int, b, question []byte) []byte {
		nd := tr.nodes[i]
		return append(b, nd.ID()+" "+strconv.Itoa(nd.machine.count(string(question)))...)
	})
}

func allKnowTheLeader(tr *trio) {
	for _, nd := range tr.nodes {
		if err := nd.ReadBarrier(context.Background()); err != nil {
			tr.t.Fatal(err)
		}
	}
}

// The leader answers every question from a state with all that was acknowledged before.
func TestAnswersHoldWhatWasAcknowledgedBeforeTheQuestion(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	answerCounts(tr)
	lead := tr.leader()
	allKnowTheLeader(tr)
	for i := range 50 {
		row := seqRow(0, i)
		lead.mustPropose(t, row)
		for _, nd := range tr.nodes {
			if nd == lead {
				continue
			}
			got, err := nd.AskLeader(t.Context(), []byte(row))
			if err != nil || string(got) != lead.ID()+" 1" {
				t.Fatalf("%s got %q, %v", nd.ID(), got, err)
			}
		}
	}
}

// Many ask at a time, also what has no answer or one that is too long; each gets its own.
func TestEveryoneGetsTheAnswerToItsOwnQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		answerWith(tr, func(_ int, b, question []byte) []byte {
			n, _ := strconv.Atoi(string(question))
			switch {
			case n%10 == 0:
				return b
			case n%10 == 1:
				return append(b, make([]byte, maxPeerFrame)...)
			}
			return append(b, bytes.Repeat(question, n)...)
		})
		allKnowTheLeader(tr)
		nd := tr.follower()
		var wg sync.WaitGroup
		for n := range maxQuestions {
			wg.Go(func() {
				question := strconv.Itoa(n)
				got, err := nd.AskLeader(context.Background(), []byte(question))
				want := strings.Repeat(question, n)
				if n%10 < 2 {
					want = ""
				}
				if err != nil || string(got) != want {
					t.Errorf("%d: %d bytes, %v", n, len(got), err)
				}
			})
		}
		wg.Wait()
		if _, err := nd.AskLeader(context.Background(), make([]byte, maxQuestion+1)); err == nil {
			t.Error("asked a question that is too long")
		}
	})
}

// A server that has no answerer, or does not lead, refuses, and nobody waits long for it.
func TestQuestionsThatNobodyAnswersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		nd := tr.follower()
		if _, err := nd.AskLeader(context.Background(), []byte("x")); err == nil {
			t.Error("answered without an answerer")
		}
		answerCounts(tr)
		tr.net.Partition([]string{"h" + nd.ID()[1:]})
		began := time.Now()
		if _, err := nd.AskLeader(context.Background(), []byte("x")); err == nil {
			t.Error("answered across a cut")
		}
		if took := time.Since(began); took > 2*nd.node.timeouts.Election {
			t.Errorf("it took %s", took)
		}
	})
}

// Only a voter that was in the leader's own term after the read came proves with it that
// nobody has led since. Any other word proves nothing.
func TestAReadIsProvenByAVoterInTheTermOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		term := lead.Status().Term
		other := tr.follower().ID()
		for _, c := range []struct {
			name, from string
			term       uint64
			want       bool
		}{
			{"a voter in the term", other, term, true},
			{"in an earlier term", other, term - 1, false},
			{"in a later term", other, term + 1, false},
			{"of an older version", other, 0, false},
			{"the leader itself", lead.ID(), term, false},
			{"a stranger", "n9", term, false},
			{"without a name", "", term, false},
		} {
			if _, ok := lead.reads.provenBy(c.from, c.term); ok != c.want {
				t.Errorf("%s: proven %v", c.name, ok)
			}
		}
		// A leader that is cut off from both others does not believe what one of them says
		// in another term.
		tr.net.Partition([]string{"h" + lead.ID()[1:]})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, _, err := lead.reads.indexFor(ctx, other, term+1); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a leader without a majority has answered: %v", err)
		}
	})
}

// Of five voters two are no majority.
func TestTwoOfFiveProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 5)
		lead := tr.leader()
		if _, ok := lead.reads.provenBy(tr.follower().ID(), lead.Status().Term); ok {
			t.Error("proven by two of five")
		}
		answerCounts(tr)
		allKnowTheLeader(tr)
		if _, err := tr.follower().AskLeader(context.Background(), []byte("x")); err != nil {
			t.Error(err)
		}
	})
}

// A leader asks one of the others for its term, as a rule. One that does not answer costs
// a round some milliseconds, and only the first.
func TestASilentVoterHoldsUpNoRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		for _, nd := range tr.nodes {
			if nd == lead {
				continue
			}
			host := "h" + nd.ID()[1:]
			tr.net.Partition([]string{host})
			for i := range 3 {
				began := time.Now()
				if err := lead.ReadBarrier(context.Background()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 2*hedge || i > 0 && took >= hedge {
					t.Errorf("without %s: read %d took %s", host, i, took)
				}
			}
			tr.net.Heal()
			time.Sleep(time.Second)
		}
	})
}
