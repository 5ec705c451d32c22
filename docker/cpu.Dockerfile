# kac on the CPU.  From the root of the project:
#   docker build -f docker/cpu.Dockerfile -t kac .
#   docker run --rm -v "$PWD/runs:/runs" kac run configs/quickstart.yaml --out /runs/quickstart
ARG BASE=debian:12
FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        gcc libc6-dev make libyaml-dev libjansson-dev && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN make -C /src -j"$(nproc)" install DESTDIR=/out

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends \
        libyaml-0-2 libjansson4 libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/usr/local /usr/local
WORKDIR /usr/local/share/kac
ENTRYPOINT ["kac"]
CMD ["help"]
