# kac on NVIDIA GPUs: the image of cpu.Dockerfile with libkac_cuda.so.  From the root of the project:
#   docker build -f docker/cpu.Dockerfile -t kac .
#   docker build -f docker/cuda.Dockerfile --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu22.04 \
#       -t kac-cuda .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD/runs:/runs" kac-cuda \
#       run configs/quickstart.yaml --out /runs/quickstart
# BASE is a Debian or Ubuntu with nvcc 13, no newer than the system of RUNTIME, the CPU's image.
# What runs needs no part of CUDA but the driver, which the container runtime brings; building needs
# no GPU.
ARG BASE
ARG RUNTIME=kac

FROM ${BASE} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ make && \
    rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
RUN make -j"$(nproc)" CUDA=1 build/release/libkac_cuda.so

FROM ${RUNTIME}
COPY --from=build /src/build/release/libkac_cuda.so /usr/local/lib/
# what NVIDIA's container runtime reads: all GPUs, and of the driver what computes
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# healthy where the driver shows a GPU
HEALTHCHECK --interval=5m --timeout=1m CMD ["sh", "-c", "kac devices | grep -q '^cuda:0'"]
