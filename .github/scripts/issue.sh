#!/usr/bin/env bash
# Opens an issue about a red night, or updates the open one. Needs gh with a token that may write issues.
#
#   issue.sh REPORT.md URL-OF-THE-RUN
set -euo pipefail

report=$1
url=$2
label=nightly-gpu
title="The nightly GPU run found a regression"
limit=60000 # of the 65,536 characters that an issue may have

body=$(mktemp)
trap 'rm -f "$body"' EXIT
printf 'Found on %s by [this run](%s). Every red night updates this issue. Close it when everything is fixed.\n\n' \
  "$(date -u +%F)" "$url" > "$body"
head -c "$limit" "$report" | iconv -f utf-8 -t utf-8 -c >> "$body" # cut between characters
if [ "$(wc -c < "$report")" -gt "$limit" ]; then
  printf '\n\n… cut here: the whole report is in the artifacts of the run.\n' >> "$body"
fi

gh label create "$label" --description "Opened by the nightly GPU run" --color b60205 --force
number=$(gh issue list --label "$label" --state open --limit 1 --json number --jq '.[0].number // empty')
if [ -n "$number" ]; then
  gh issue edit "$number" --body-file "$body"
  gh issue comment "$number" --body "Red again: $url"
else
  gh issue create --title "$title" --label "$label" --body-file "$body"
fi
