#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Unpacks digits.csv beside this file.
#
# usage: derive.sh [digits.csv.gz]      (Debian: apt install python3-sklearn)
set -eu
packed=${1:-/usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz}
gzip -dc "$packed" > "$(dirname "$0")/digits.csv"
