"""The messages of a CoreML specification, as far as they are read: field numbers and types, after Apple's format.

A line is `Message: field=number:type …`; `*` repeats a field, `/ Group:` begins fields of which one is set. A field
without a type is a part that is not looked into: its name serves to say what is not supported. `Nothing` has no fields.
"""

TABLE = """
Model: specificationVersion=1:int32 description=2:ModelDescription / Type: pipelineClassifier=200:PipelineClassifier
  pipelineRegressor=201 pipeline=202:Pipeline glmRegressor=300 supportVectorRegressor=301
  treeEnsembleRegressor=302:TreeEnsembleRegressor neuralNetworkRegressor=303 bayesianProbitRegressor=304
  glmClassifier=400:GLMClassifier supportVectorClassifier=401:SupportVectorClassifier
  treeEnsembleClassifier=402:TreeEnsembleClassifier neuralNetworkClassifier=403:NeuralNetworkClassifier
  kNearestNeighborsClassifier=404:KNearestNeighborsClassifier neuralNetwork=500:NeuralNetwork
  itemSimilarityRecommender=501 mlProgram=502 customModel=555 linkedModel=556 classConfidenceThresholding=560
  oneHotEncoder=600:OneHotEncoder imputer=601:Imputer featureVectorizer=602:FeatureVectorizer
  dictVectorizer=603:DictVectorizer scaler=604:Scaler categoricalMapping=606:CategoricalMapping
  normalizer=607:Normalizer arrayFeatureExtractor=609:ArrayFeatureExtractor nonMaximumSuppression=610
  identity=900:Nothing textClassifier=2000 wordTagger=2001 visionFeaturePrint=2002 soundAnalysisPreprocessing=2003
  gazetteer=2004 wordEmbedding=2005 audioFeaturePrint=2006 serializedModel=3000
ModelDescription: metadata=100:Metadata input=1:FeatureDescription* output=10:FeatureDescription*
  predictedFeatureName=11:string predictedProbabilitiesName=12:string
Metadata: shortDescription=1:string versionString=2:string author=3:string license=4:string
  userDefined=100:Entry*
Entry: key=1:string value=2:string
FeatureDescription: name=1:string shortDescription=2:string type=3:FeatureType
FeatureType: isOptional=1000:bool / Type: int64Type=1:Nothing doubleType=2:Nothing stringType=3:Nothing imageType=4
  multiArrayType=5:ArrayFeatureType dictionaryType=6:DictionaryFeatureType sequenceType=7 stateType=8
ArrayFeatureType: shape=1:int64* dataType=2:int32
DictionaryFeatureType: / KeyType: int64KeyType=1:Nothing stringKeyType=2:Nothing
PipelineClassifier: pipeline=1:Pipeline
Pipeline: models=1:Model* names=2:string*
TreeEnsembleRegressor: treeEnsemble=1:TreeEnsembleParameters postEvaluationTransform=2:int32
TreeEnsembleParameters: nodes=1:TreeNode* numPredictionDimensions=2:uint64
  basePredictionValue=3:double*
TreeNode: treeId=1:uint64 nodeId=2:uint64 nodeBehavior=3:int32 branchFeatureIndex=10:uint64
  branchFeatureValue=11:double trueChildNodeId=12:uint64 falseChildNodeId=13:uint64
  missingValueTracksTrueChild=14:bool evaluationInfo=20:EvaluationInfo*
EvaluationInfo: evaluationIndex=1:uint64 evaluationValue=2:double
GLMClassifier: weights=1:DoubleArray* offset=2:double* postEvaluationTransform=3:int32 classEncoding=4:int32 /
  ClassLabels: stringClassLabels=100:StringVector int64ClassLabels=101:Int64Vector
DoubleArray: value=1:double*
DoubleVector: vector=1:double*
StringVector: vector=1:string*
Int64Vector: vector=1:int64*
SupportVectorClassifier: kernel=1:Kernel numberOfSupportVectorsPerClass=2:int32* coefficients=5:Coefficients*
  rho=6:double* probA=7:double* probB=8:double* / supportVectors: sparseSupportVectors=3:SparseSupportVectors
  denseSupportVectors=4:DenseSupportVectors / ClassLabels: stringClassLabels=100:StringVector
  int64ClassLabels=101:Int64Vector
Kernel: / kernel: linearKernel=1:Nothing rbfKernel=2:RBFKernel polyKernel=3:PolyKernel sigmoidKernel=4:SigmoidKernel
RBFKernel: gamma=1:double
PolyKernel: degree=1:int32 c=2:double gamma=3:double
SigmoidKernel: gamma=1:double c=2:double
SparseSupportVectors: vectors=1:SparseVector*
SparseVector: nodes=1:SparseNode*
SparseNode: index=1:int32 value=2:double
DenseSupportVectors: vectors=1:DenseVector*
DenseVector: values=1:double*
Coefficients: alpha=1:double*
TreeEnsembleClassifier: treeEnsemble=1:TreeEnsembleParameters postEvaluationTransform=2:int32 / ClassLabels:
  stringClassLabels=100:StringVector int64ClassLabels=101:Int64Vector
NeuralNetworkClassifier: layers=1:NeuralNetworkLayer* preprocessing=2* arrayInputShapeMapping=5:int32
  imageInputShapeMapping=6:int32 labelProbabilityLayerName=200:string / ClassLabels:
  stringClassLabels=100:StringVector int64ClassLabels=101:Int64Vector
NeuralNetworkLayer: name=1:string input=2:string* output=3:string* / layer: convolution=100 pooling=120
  activation=130:ActivationParams innerProduct=140:InnerProduct embedding=150:Embedding batchnorm=160:Batchnorm
  mvn=165 l2normalize=170:L2Normalize softmax=175:Nothing lrn=180 crop=190 padding=200
  upsample=210 resizeBilinear=211 cropResize=212 unary=220:UnaryFunction add=230:Alpha multiply=231:Alpha
  average=240:Nothing scale=245:Scale bias=250:Bias max=260:Nothing min=261:Nothing dot=270
  reduce=280:Reduce loadConstant=290:LoadConstant reshape=300:Reshape flatten=301:Flatten permute=310:Permute
  concat=320:Concat split=330 sequenceRepeat=340 reorganizeData=345 slice=350 simpleRecurrent=400 gru=410
  uniDirectionalLSTM=420 biDirectionalLSTM=430 custom=500 copy=600:Nothing branch=605 loop=615 loopBreak=620
  loopContinue=625 rangeStatic=635 rangeDynamic=640 clip=660:Clip ceil=665:Nothing floor=670:Nothing sign=680:Nothing
  round=685 exp2=700:Nothing sin=710 cos=715 tan=720 asin=730 acos=735 atan=740 sinh=750 cosh=755 tanh=760:Nothing
  asinh=770 acosh=775 atanh=780 erf=790:Nothing gelu=795:Gelu equal=815 notEqual=820 lessThan=825 lessEqual=827
  greaterThan=830 greaterEqual=832 logicalOr=840 logicalXor=845 logicalNot=850 logicalAnd=855 modBroadcastable=865
  minBroadcastable=870:Nothing maxBroadcastable=875:Nothing addBroadcastable=880:Nothing powBroadcastable=885
  divideBroadcastable=890:Nothing floorDivBroadcastable=895 multiplyBroadcastable=900:Nothing
  subtractBroadcastable=905:Nothing tile=920 stack=925 gather=930 scatter=935 gatherND=940 scatterND=945
  softmaxND=950:SoftmaxND gatherAlongAxis=952 scatterAlongAxis=954 reverse=960 reverseSeq=965 splitND=975
  concatND=980:ConcatND transpose=985:Transpose sliceStatic=995 sliceDynamic=1000 slidingWindows=1005 topK=1015
  argMin=1020 argMax=1025 embeddingND=1040:EmbeddingND batchedMatmul=1045:BatchedMatMul getShape=1065
  loadConstantND=1070:LoadConstant fillLike=1080 fillStatic=1085 fillDynamic=1090 broadcastToLike=1100
  broadcastToStatic=1105 broadcastToDynamic=1110 squeeze=1120:Squeeze expandDims=1125:ExpandDims
  flattenTo2D=1130:FlattenTo2D reshapeLike=1135 reshapeStatic=1140:ReshapeStatic reshapeDynamic=1145
  rankPreservingReshape=1150:ReshapeStatic constantPad=1155 randomNormalLike=1170 randomNormalStatic=1175
  randomNormalDynamic=1180 randomUniformLike=1190 randomUniformStatic=1195 randomUniformDynamic=1200
  randomBernoulliLike=1210 randomBernoulliStatic=1215 randomBernoulliDynamic=1220 categoricalDistribution=1230
  reduceL1=1250:ReduceAxes reduceL2=1255:ReduceAxes reduceMax=1260:ReduceAxes reduceMin=1265:ReduceAxes
  reduceSum=1270:ReduceAxes reduceProd=1275:ReduceAxes reduceMean=1280:ReduceAxes reduceLogSum=1285:ReduceAxes
  reduceSumSquare=1290:ReduceAxes reduceLogSumExp=1295:ReduceAxes whereNonZero=1313 matrixBandPart=1315
  lowerTriangular=1320 upperTriangular=1325 whereBroadcastable=1330 layerNormalization=1350:LayerNormalization
  NonMaximumSuppression=1400 oneHot=1450 cumSum=1455 clampedReLU=1460:AlphaBeta argSort=1461 pooling3d=1465
  globalPooling3d=1466 sliceBySize=1470 convolution3d=1471
ActivationParams: / NonlinearityType: linear=5:AlphaBeta ReLU=10:Nothing leakyReLU=15:Alpha thresholdedReLU=20:Alpha
  PReLU=25:ActivationPReLU tanh=30:Nothing scaledTanh=31:AlphaBeta sigmoid=40:Nothing sigmoidHard=41:AlphaBeta
  ELU=50:Alpha softsign=60:Nothing softplus=70:Nothing parametricSoftplus=71:ActivationParametricSoftplus
AlphaBeta: alpha=1:float beta=2:float
ActivationPReLU: alpha=1:WeightParams
WeightParams: floatValue=1:float* float16Value=2:bytes rawValue=30:bytes int8RawValue=31:bytes
  quantization=40:QuantizationParams
QuantizationParams: numberOfBits=1:uint64 / QuantizationType: linearQuantization=101:LinearQuantizationParams
  lookupTableQuantization=102:LookUpTableQuantizationParams
LinearQuantizationParams: scale=1:float* bias=2:float*
LookUpTableQuantizationParams: floatValue=1:float*
ActivationParametricSoftplus: alpha=1:WeightParams beta=2:WeightParams
InnerProduct: inputChannels=1:uint64 outputChannels=2:uint64 hasBias=10:bool weights=20:WeightParams
  bias=21:WeightParams int8DynamicQuantize=22:bool
Embedding: inputDim=1:uint64 outputChannels=2:uint64 hasBias=10:bool weights=20:WeightParams bias=21:WeightParams
Batchnorm: channels=1:uint64 computeMeanVar=5:bool instanceNormalization=6:bool epsilon=10:float gamma=15:WeightParams
  beta=16:WeightParams mean=17:WeightParams variance=18:WeightParams
L2Normalize: epsilon=1:float
UnaryFunction: type=1:int32 alpha=2:float epsilon=3:float shift=4:float scale=5:float
Alpha: alpha=1:float
Scale: shapeScale=1:uint64* scale=2:WeightParams hasBias=3:bool shapeBias=4:uint64* bias=5:WeightParams
Bias: shape=1:uint64* bias=2:WeightParams
Reduce: mode=1:int32 epsilon=2:float axis=3:int32
LoadConstant: shape=1:uint64* data=2:WeightParams
Reshape: targetShape=1:int64* mode=2:int32
Flatten: mode=1:int32
Permute: axis=1:uint64*
Concat: sequenceConcat=100:bool
Clip: minVal=1:float maxVal=2:float
Gelu: mode=1:int32
SoftmaxND: axis=1:int64
ConcatND: axis=1:int64 interleave=2:bool
Transpose: axes=1:uint64*
EmbeddingND: vocabSize=1:uint64 embeddingSize=2:uint64 hasBias=3:bool weights=20:WeightParams bias=21:WeightParams
BatchedMatMul: transposeA=1:bool transposeB=2:bool weightMatrixFirstDimension=5:uint64
  weightMatrixSecondDimension=6:uint64 hasBias=7:bool weights=8:WeightParams bias=9:WeightParams
  int8DynamicQuantize=10:bool
Squeeze: axes=1:int64* squeezeAll=2:bool
ExpandDims: axes=1:int64*
FlattenTo2D: axis=1:int64
ReshapeStatic: targetShape=1:int64*
ReduceAxes: axes=1:int64* keepDims=2:bool reduceAll=3:bool
LayerNormalization: normalizedShape=1:int64* eps=2:float gamma=3:WeightParams beta=4:WeightParams
KNearestNeighborsClassifier: nearestNeighborsIndex=1:NearestNeighborsIndex numberOfNeighbors=3:Int64Parameter /
  ClassLabels: stringClassLabels=100:StringVector int64ClassLabels=101:Int64Vector / DefaultClassLabel:
  defaultStringLabel=110:string defaultInt64Label=111:int64 / WeightingScheme: uniformWeighting=200:Nothing
  inverseDistanceWeighting=210:Nothing
NearestNeighborsIndex: numberOfDimensions=1:int32 floatSamples=2:FloatVector* / IndexType: linearIndex=100:Nothing
  singleKdTreeIndex=110:Nothing / DistanceFunction: squaredEuclideanDistance=200:Nothing
FloatVector: vector=1:float*
Int64Parameter: defaultValue=1:int64
NeuralNetwork: layers=1:NeuralNetworkLayer* preprocessing=2* arrayInputShapeMapping=5:int32
  imageInputShapeMapping=6:int32
OneHotEncoder: outputSparse=10:bool handleUnknown=11:int32 / CategoryType: stringCategories=1:StringVector
  int64Categories=2:Int64Vector
Imputer: / ImputedValue: imputedDoubleValue=1:double imputedInt64Value=2:int64 imputedStringValue=3:string
  imputedDoubleArray=4:DoubleVector imputedInt64Array=5:Int64Vector imputedStringDictionary=6:StringToDoubleMap
  imputedInt64Dictionary=7:Int64ToDoubleMap / ReplaceValue: replaceDoubleValue=11:double replaceInt64Value=12:int64
  replaceStringValue=13:string
StringToDoubleMap: map=1:StringToDouble*
StringToDouble: key=1:string value=2:double
Int64ToDoubleMap: map=1:Int64ToDouble*
Int64ToDouble: key=1:int64 value=2:double
FeatureVectorizer: inputList=1:InputColumn*
InputColumn: inputColumn=1:string inputDimensions=2:uint64
DictVectorizer: / Map: stringToIndex=1:StringVector int64ToIndex=2:Int64Vector
Scaler: shiftValue=1:double* scaleValue=2:double*
CategoricalMapping: / MappingType: stringToInt64Map=1:StringToInt64Map int64ToStringMap=2:Int64ToStringMap /
  ValueOnUnknown: strValue=101:string int64Value=102:int64
StringToInt64Map: map=1:StringToInt64*
StringToInt64: key=1:string value=2:int64
Int64ToStringMap: map=1:Int64ToString*
Int64ToString: key=1:int64 value=2:string
Normalizer: normType=1:int32
ArrayFeatureExtractor: extractIndex=1:uint64*
"""
