# Headstart in a container. In this folder:
#   docker build -t headstart .
#   docker build -t headstart:cuda --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime .
# In the folder with your pictures; logs/ and .headstart/ (weights and caches) appear there:
#   docker run --rm --user "$(id -u):$(id -g)" --shm-size=4g -v "$PWD:/workspace" headstart train model=resnet50 \
#     data=image_folder data.root=pictures
#   docker run --rm --gpus all ... headstart:cuda train ...

# For the CPU a plain Python; for a GPU an image of PyTorch with CUDA, whose torch is then used
ARG BASE=python:3.12-slim
FROM ${BASE}

# Where torch and torchvision come from if the base has none: by default without CUDA, which saves 4 GB
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of pyproject.toml
ARG EXTRAS=onnx,serve,text,timm

# The image has one environment, its own: newer bases forbid to install into it without this
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# In a layer of its own, because it is large and rarely changes. The bounds of versions are in pyproject.toml
# hadolint ignore=DL3013
RUN python -m pip install "torch>=2.6" "torchvision>=0.21" --index-url "${TORCH_INDEX}"

WORKDIR /opt/headstart
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY src src
# hadolint ignore=DL3013
RUN python -m pip install ".[${EXTRAS}]"

# Any user can be given with --user, so that files in /workspace belong to the person who started the container
ENV HOME=/tmp HEADSTART_CACHE=/workspace/.headstart \
    TORCH_HOME=/workspace/.headstart/torch HF_HOME=/workspace/.headstart/huggingface
RUN useradd --no-create-home --uid 10001 headstart && mkdir /workspace && chown 10001 /workspace
USER 10001
WORKDIR /workspace
EXPOSE 8000
ENTRYPOINT ["headstart"]
CMD ["--help"]
