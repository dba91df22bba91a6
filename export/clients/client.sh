#!/usr/bin/env bash
# Print the Gram matrices and the embedding of an image file as JSON, with curl and TensorFlow Serving over REST:
#   bash client.sh FILE [URL] [MODEL] | jq '.outputs.embedding[0][:4]'
# Exit codes: 0 done; 1 the server cannot be reached or has failed; 2 the file cannot be read, or the server
# refuses it.
set -euo pipefail

file=${1-}
url=${2-http://127.0.0.1:8501}
model=${3-tfstyle}
if [[ ! -r $file || -d $file ]]; then
  echo "client.sh: cannot read '$file'; usage: client.sh FILE [URL] [MODEL]" >&2
  exit 2
fi

reply=$(mktemp)
trap 'rm -f "$reply"' EXIT
# The body of the request goes through a pipe, because the arguments of a command cannot hold an image.
code=$({
  printf '{"signature_name":"encoded","inputs":{"images":[{"b64":"'
  base64 <"$file" | tr -d '\n'
  printf '"}]}}'
} | curl -sS --max-time 600 -o "$reply" -w '%{http_code}' -H 'Content-Type: application/json' \
  --data-binary @- "$url/v1/models/$model:predict") || {
  echo "client.sh: no usable reply from $url" >&2
  exit 1
}

case $code in
  200) cat "$reply" ;;
  4*) echo "client.sh: the server answered $code: $(tr '\n' ' ' <"$reply")" >&2; exit 2 ;;
  *) echo "client.sh: the server answered $code: $(tr '\n' ' ' <"$reply")" >&2; exit 1 ;;
esac
