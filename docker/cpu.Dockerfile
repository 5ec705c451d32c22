# kac on the CPU, alone or over the ranks of an MPI job.  From the root of the project:
#   docker build -f docker/cpu.Dockerfile -t kac .
#   docker build -f docker/cpu.Dockerfile --target test .     # make test, inside
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/runs:/runs" kac \
#       run configs/quickstart.yaml --out /runs/quickstart
# --build-arg RDKIT=on adds RDKit, for rewards of molecules; BASE may be another Debian or Ubuntu.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev make libyaml-dev libjansson-dev libopenmpi-dev && \
    rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
RUN make -j"$(nproc)" CUDA=0 all && make CUDA=0 install DESTDIR=/out && \
    strip /out/usr/local/bin/kac && rm -r /out/usr/local/lib/libkac.* /out/usr/local/lib/pkgconfig

# built only when it is asked for; Docker's default profile forbids what Open MPI would copy
# between ranks with
FROM build AS test
ENV OMPI_MCA_btl_vader_single_copy_mechanism=none
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-yaml && make -j"$(nproc)" test

FROM ${BASE}
ARG RDKIT=off
# libstdc++6 is for plug-ins in C++ and for CUDA; ssh is how mpirun reaches the pods of an MPIJob
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        libyaml-0-2 libjansson4 libgomp1 libstdc++6 openmpi-bin openssh-client openssh-server \
        python3 $([ "$RDKIT" = off ] || echo python3-rdkit) && \
    rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* && \
    useradd --create-home --uid 10001 kac && install -d -o kac -g kac /runs
COPY docker/ssh/client.conf /etc/ssh/ssh_config.d/kac.conf
COPY docker/ssh/server.conf /etc/ssh/kac_sshd_config
COPY --from=build /out/usr/local /usr/local
# as in the test
ENV OMPI_MCA_btl_vader_single_copy_mechanism=none
USER 10001:10001
# the paths of the shipped configurations are relative to this folder
WORKDIR /usr/local/share/kac
HEALTHCHECK --interval=5m --timeout=1m CMD ["kac", "devices"]
ENTRYPOINT ["kac"]
CMD ["help"]
