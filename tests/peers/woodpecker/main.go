// Command woodpecker-peer stands where a Woodpecker server would: it asks an extension for secrets, signed by the
// library that signs for Woodpecker, set up the way Woodpecker sets it up. See README.md.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Job is what is read from standard input.
type Job struct {
	Key        string `json:"key"`    // a file: an ed25519 private key, PKCS8, PEM
	Server     string `json:"server"` // http://host:port; empty to record
	Steps      []Step `json:"steps"`
	AtOnce     bool   `json:"at_once"`     // all steps together, not one after another
	SameSecond bool   `json:"same_second"` // begin when most of a second is left
}

// Report is what is written to standard output.
type Report struct {
	Go        string     `json:"go"`
	Signer    string     `json:"signer"`
	PublicKey string     `json:"public_key"`
	Outcomes  []Outcome  `json:"outcomes"`
	Recorded  []Recorded `json:"recorded,omitempty"`
}

func main() {
	report, err := run(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(input io.Reader) (Report, error) {
	var job Job
	decoder := json.NewDecoder(input)
	decoder.DisallowUnknownFields() // a field that Woodpecker does not have is a mistake in a test
	if err := decoder.Decode(&job); err != nil {
		return Report{}, err
	}
	key, err := readKey(job.Key)
	if err != nil {
		return Report{}, err
	}
	by, err := newClients(key)
	if err != nil {
		return Report{}, err
	}
	public, err := publicPEM(key)
	if err != nil {
		return Report{}, err
	}
	report := Report{Go: runtime.Version(), Signer: signerVersion(), PublicKey: public}
	if job.SameSecond {
		waitForRoomInSecond()
	}
	if job.Server == "" {
		report.Recorded, report.Outcomes = record(job.Steps, by)
	} else {
		report.Outcomes = take(job, by)
	}
	return report, nil
}

func take(job Job, by clients) []Outcome {
	outcomes := make([]Outcome, len(job.Steps))
	var running sync.WaitGroup
	for i, step := range job.Steps {
		running.Add(1)
		go func() {
			defer running.Done()
			outcomes[i] = step.take(job.Server, by)
		}()
		if !job.AtOnce {
			running.Wait()
		}
	}
	running.Wait()
	return outcomes
}

// waitForRoomInSecond returns early in a second. Signatures carry whole seconds: what starts now shares one.
func waitForRoomInSecond() {
	const late = 300 * time.Millisecond
	if into := time.Duration(time.Now().Nanosecond()); into > late {
		time.Sleep(time.Second - into)
	}
}

// signerVersion is the version of httpsign that is built in.
func signerVersion() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/yaronf/httpsign" {
			return module.Version
		}
	}
	return "unknown"
}
